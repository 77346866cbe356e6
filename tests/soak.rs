//! A long run: frame after frame through one session, with changing sizes, layouts, prompts, drafts and grammars,
//! cancels, deadlines and mistakes. Neither memory nor descriptors nor threads grow, and answers stay the same.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use palmtop::image::{Frame, ImageLimits, PixelFormat, Plane, RgbImage, Rotation, decode};
use palmtop::{Answer, Error, GenerateOptions, Grammar, ImageFeatures, Limits, Request, Sampling, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, data, uniform};

const SIDE_MAX: u32 = 96;
const PROMPTS: [&str; 6] = [
    "caption en",
    "ocr",
    "detect cat ; dog",
    "answer en what is it?",
    "segment a\u{e9}\u{4e16}",
    "caption de",
];
/// What a system's allocator may keep of memory that was given back.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

#[test]
fn a_thousand_frames_leave_nothing_behind() {
    soak(1_000);
}

/// Some minutes; `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_frames_leave_nothing_behind() {
    soak(100_000);
}

fn soak(frames: u64) {
    // What the process has is counted, so only one runs at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let model = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens, limits.prompt_tokens) = (3, Some(2), 6, 24);
    (limits.draft_tokens, limits.image_side) = (2, SIDE_MAX as usize);
    let mut soak = Soak {
        session: Session::new(&model, &limits).expect("a small session"),
        features: model.new_features().expect("memory"),
        dice: Dice(1),
        pixels: (0..SIDE_MAX * SIDE_MAX * 4).map(|i| (i * 37 >> 3) as u8).collect(),
        encoded: ["scene_640x361.png", "noise_97x61.png"]
            .map(|name| std::fs::read(data().join("images").join(name)).expect("a picture"))
            .into(),
        ends: Ends::default(),
    };
    let first = soak.probe();
    let mut before = None;
    for frame in 0..frames {
        // By then all has happened once that takes memory for good.
        if frame == frames / 4 {
            before = Some(Resources::now());
        }
        soak.frame();
        if frame % 250 == 0 {
            assert_eq!(soak.probe(), first, "frame {frame}");
        }
    }
    assert_eq!(soak.probe(), first);
    let Ends { answered, cancelled, late, refused } = soak.ends;
    for (what, count) in
        [("answered", answered), ("cancelled", cancelled), ("late", late), ("refused", refused)]
    {
        assert!(count > frames / 100, "only {count} of {frames} were {what}");
    }
    let (Some(before), now) = (before, Resources::now()) else { return };
    println!("{frames} frames: {before:?} after a quarter, {now:?} at the end");
    assert!(now.resident_bytes <= before.resident_bytes + GROWTH_BYTES_MAX, "{before:?} became {now:?}");
    assert_eq!((now.descriptors, now.threads), (before.descriptors, before.threads));
}

/// How calls ended.
#[derive(Default)]
struct Ends {
    answered: u64,
    cancelled: u64,
    late: u64,
    refused: u64,
}

struct Soak {
    session: Session,
    features: ImageFeatures,
    dice: Dice,
    pixels: Vec<u8>,
    encoded: Vec<Vec<u8>>,
    ends: Ends,
}

impl Soak {
    /// A picture and a prompt whose answer must never change.
    fn probe(&mut self) -> (Vec<u32>, String) {
        let options = GenerateOptions::default();
        let picture = RgbImage::new(7, 5, self.pixels[..105].to_vec()).expect("a small picture");
        self.session.encode(picture.view(), &mut self.features, &options).expect("features");
        let go_on = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
        let answers = self.session.answer(&self.features, &PROMPTS[..3], &options, go_on).expect("answers");
        let bits = |a: &Answer| a.probabilities.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
        let all = answers.iter().flat_map(|a| a.tokens.iter().copied().chain(bits(a))).collect();
        (all, answers[0].text.clone())
    }

    /// One frame, with whatever the dice say.
    fn frame(&mut self) {
        let mut options = GenerateOptions::default();
        match self.dice.of(12) {
            0 => options.cancel.cancel(),
            1 => options.deadline = Some(Instant::now()),
            2 => options.deadline = Some(Instant::now() + Duration::from_micros(self.dice.of(2000))),
            3 => {
                options.sampling = Sampling { temperature: 1.0, seed: self.dice.of(9), ..Sampling::default() }
            }
            4 => {
                let words = ["yes", "no", "a red car"];
                options.grammar = Some(Grammar::choices(self.session.model(), words).expect("a grammar"));
                options.max_new_tokens = None;
            }
            5 => options.max_new_tokens = Some(1 + self.dice.of(6) as usize),
            _ => {}
        }
        let encoded = self.encode(&options);
        self.note(encoded.err());
        let done = match self.dice.of(4) {
            0 => self.steps(&options),
            _ => self.answer(&options),
        };
        self.note(done.err());
    }

    fn note(&mut self, error: Option<Error>) {
        match error {
            None => self.ends.answered += 1,
            Some(Error::Cancelled) => self.ends.cancelled += 1,
            Some(Error::DeadlinePassed) => self.ends.late += 1,
            Some(Error::Usage(_) | Error::Image(_)) => self.ends.refused += 1,
            Some(other) => panic!("{other}"),
        }
    }

    /// A picture of any size and layout, now and then too large, or from an encoded file.
    fn encode(&mut self, options: &GenerateOptions) -> palmtop::Result<()> {
        let dice = &mut self.dice;
        let (width, height) = (1 + dice.of(SIDE_MAX.into()) as u32, 1 + dice.of(SIDE_MAX.into()) as u32);
        let stride = SIDE_MAX as usize * 4;
        let rotation = Rotation::from_degrees(90 * dice.of(4) as u32).expect("a quarter");
        let packed = |format| Frame::packed(format, width, height, stride, &self.pixels);
        let frame = match dice.of(8) {
            0 => {
                let picture = decode(&self.encoded[dice.of(2) as usize], &ImageLimits::default())?;
                return self.session.encode(picture.view(), &mut self.features, options);
            }
            1 => Frame::packed(PixelFormat::Grey, SIDE_MAX + 1, 1, stride, &self.pixels),
            2 => packed(PixelFormat::Bgra),
            3 => packed(PixelFormat::Grey),
            4 => {
                let plane = |at: usize| Plane::new(&self.pixels[at..], stride);
                Frame::nv12(width, height, plane(0), plane(1))
            }
            _ => packed(PixelFormat::Rgb),
        };
        self.session.encode(frame?.turned(rotation), &mut self.features, options)
    }

    /// Some prompts from start to end; now and then one that is too long, or a stop on the way.
    fn answer(&mut self, options: &GenerateOptions) -> palmtop::Result<()> {
        let dice = &mut self.dice;
        let mut prompts: Vec<&str> = (0..1 + dice.of(3)).map(|_| PROMPTS[dice.of(6) as usize]).collect();
        let long = "long ".repeat(60);
        if dice.of(20) == 0 {
            prompts.push(&long);
            prompts.remove(0);
        }
        let (stop, cancel) = (dice.of(30), dice.of(30));
        let mut pieces = 0;
        let answers = self.session.answer(&self.features, &prompts, options, &mut |_| {
            pieces += 1;
            if pieces == cancel {
                options.cancel.cancel();
            }
            if pieces == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        assert_eq!(answers.len(), prompts.len());
        Ok(())
    }

    /// Sequences that join and leave, with drafts; some are left before they have ended.
    fn steps(&mut self, options: &GenerateOptions) -> palmtop::Result<()> {
        let mut running = Vec::new();
        let mut result = Ok(());
        let go_on = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
        for _ in 0..2 + self.dice.of(6) {
            if self.session.free_sequences() > 0 && self.dice.of(2) == 0 {
                let draft = [self.dice.of(2000) as u32, self.dice.of(2000) as u32];
                let prompt = PROMPTS[self.dice.of(6) as usize];
                let pictures = [&self.features];
                let request =
                    Request { pictures: &pictures, prompt, draft: &draft[..self.dice.of(3) as usize] };
                match self.session.begin(&request, options, go_on) {
                    Ok(id) => running.push(id),
                    Err(error) => result = Err(error),
                }
            }
            if let Err(error) = self.session.step(go_on) {
                result = Err(error);
            }
            if !running.is_empty() && self.dice.of(3) == 0 {
                let at = self.dice.of(running.len() as u64) as usize;
                self.session.end(running.swap_remove(at)).expect("a sequence that was begun");
            }
        }
        running.into_iter().for_each(|id| self.session.end(id).expect("a sequence that was begun"));
        result
    }
}

/// The same numbers in every run: SplitMix64.
struct Dice(u64);

impl Dice {
    fn of(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What this process has of the system.
#[derive(Clone, Copy, Debug, Default)]
struct Resources {
    resident_bytes: u64,
    descriptors: usize,
    threads: usize,
}

impl Resources {
    #[cfg(target_os = "linux")]
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let field = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of every Linux");
            line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
        };
        Self {
            // Pages of files, such as the model's, come and go as the system likes.
            resident_bytes: field("RssAnon:") << 10,
            descriptors: std::fs::read_dir("/proc/self/fd").expect("Linux has it").count(),
            threads: field("Threads:") as usize,
        }
    }

    /// Nothing is known elsewhere.
    #[cfg(not(target_os = "linux"))]
    fn now() -> Self {
        Self::default()
    }
}
