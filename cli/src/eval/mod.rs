//! `palmtop eval`: measures how well a model answers, and how it differs from another.

mod boxes;
mod coco;
mod compare;
mod items;
mod masks;
mod placing;
mod report;
mod tally;
mod text;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use palmtop::ImageFeatures;
use palmtop::image::{ImageLimits, RgbImage, decode_file, orientation_of_file};
use palmtop::model::Model;
use palmtop::session::{Answer, CancelToken, GenerateOptions, Request, Session, StopReason};
use palmtop_convert::Progress;
use palmtop_convert::examples::TaskKind;

use crate::args::{EvalArgs, Load, ModelArgs};
use crate::errors::{UsageError, WithHint};
use crate::files::{Replacement, refuse_to_replace};
use crate::models::Chosen;
use crate::output::{Console, Stdout};
use crate::progress::Bar;
use crate::{Outcome, errors, interrupt, models};
use compare::{Agreement, TeacherForcing};
use items::{Expected, Item, Picture};
use masks::Pixels;
use placing::Placing;
use tally::{ItemScores, Scorer, Tally};

/// Prompts are answered together up to this many, unless the user says otherwise.
const BATCH_MAX: usize = 8;
/// Tokens of an answer at most, unless the user says otherwise.
const NEW_TOKENS: usize = 256;
/// The memory for prompts is for as many tokens as a prompt has bytes, within these.
const PROMPT_TOKENS: (usize, usize) = (64, 4096);

pub fn run(args: &EvalArgs, console: Console) -> anyhow::Result<Outcome> {
    if args.models.len() > 2 {
        return Err(UsageError("-m takes one model, or two to compare".into()).into());
    }
    args.machine.kernels()?;
    let source = items::Source {
        data: &args.data,
        images: args.images.as_deref(),
        all_labels: args.all_labels,
        limit: args.limit.map_or(usize::MAX, |n| n as usize),
    };
    let pictures = items::read(&source, console)?;
    // If the file cannot be written, or has what is read, that is better known beforehand.
    if let Some(answers) = &args.answers {
        let pictures = pictures.iter().flat_map(|picture| &picture.paths);
        let read = pictures.map(PathBuf::as_path).chain([args.data.as_path()]);
        refuse_to_replace(answers, read.chain(args.models.iter().map(|model| model.as_path())))?;
        drop(Replacement::new(answers)?);
    }
    let cancel = interrupt::listen()?;
    let models = open(args, console)?;
    let mut candidates =
        models.iter().map(|m| Candidate::new(m, args, &pictures, &cancel)).collect::<Result<Vec<_>, _>>()?;
    warn_of_masks(&candidates, &pictures, console);

    let mut run = Run { results: Vec::new(), failures: Vec::new(), agreement: Default::default() };
    let share_tokens = match &models[..] {
        [first, second] => have_the_same_tokens(first, second),
        _ => false,
    };
    if models.len() == 2 && !share_tokens {
        console.note("note: the models have different tokenizers, so only their texts are compared");
    }
    let mut teacher_forcing = share_tokens.then(TeacherForcing::default);
    let bar = Bar::items(console, "answering", Some(cancel.clone()));
    bar.start(pictures.iter().map(|p| p.items.len() as u64).sum());
    for picture in pictures {
        if cancel.is_cancelled() {
            break;
        }
        let items = picture.items.len() as u64;
        models.iter().try_for_each(|model| model.check_unchanged())?;
        run.picture(picture, &mut candidates, &mut teacher_forcing, args, &cancel)?;
        bar.advance(items);
    }
    bar.finish();
    run.results.sort_by_key(|r| r.item.line);
    run.failures.sort_by_key(|f| f.line);
    for failure in &run.failures {
        console
            .note(format_args!("not answered: line {}, {}: {}", failure.line, failure.image, failure.error));
    }
    if let Some(path) = &args.answers {
        report::write_answers(path, &run.results)?;
    }
    let interrupted = cancel.is_cancelled();
    let report = report::Report::new(args, &models, &candidates, &run, share_tokens, interrupted);
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&report)?;
    } else {
        out.print(&report)?;
    }
    Ok(match (interrupted, run.failures.is_empty()) {
        (true, _) => Outcome::Interrupted,
        (false, true) => Outcome::Done,
        (false, false) => Outcome::SomeFailed,
    })
}

fn open(args: &EvalArgs, console: Console) -> anyhow::Result<Vec<Arc<Model>>> {
    if args.models.is_empty() {
        let machine = args.machine.clone();
        return Ok(vec![models::open_or_demo(
            &ModelArgs { model: None, load: Load::default(), machine },
            console,
        )?]);
    }
    let open = |named: &PathBuf| match models::choose(Some(named), console)? {
        Chosen::Demo(_) => models::open_chosen(&Chosen::Demo(true), Load::default(), console),
        // Which of two is the better one is not known yet: neither becomes the default.
        Chosen::File(path) => models::open(&path),
    };
    args.models.iter().map(open).collect()
}

/// Whether token ids mean the same, so that one model can follow the other's answers.
fn have_the_same_tokens(first: &Model, second: &Model) -> bool {
    let table = |m: &Model| m.file().find(palmtop::model::TOKENIZER).map(|t| (t.length, t.checksum));
    let (a, b) = (first.config(), second.config());
    table(first) == table(second) && a.text.vocab == b.text.vocab && a.tokens == b.tokens
}

fn warn_of_masks(candidates: &[Candidate<'_>], pictures: &[Picture], console: Console) {
    let segments = pictures.iter().flat_map(|p| &p.items).any(|i| i.task == TaskKind::Segment);
    if segments && !candidates.iter().all(|c| c.scorer.has_masks()) {
        console.note(
            "note: without a mask decoder in the model masks cannot be compared; convert it with --mask-codec",
        );
    }
}

/// A model that answers, and what its answers are worth so far.
struct Candidate<'a> {
    session: Session,
    /// Of the pictures at hand, in their order, and memory for more.
    features: Vec<ImageFeatures>,
    scorer: Scorer<'a>,
    options: GenerateOptions,
    tallies: [Tally; TaskKind::ALL.len()],
    times: Times,
}

/// What answering has taken.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    encode: Duration,
    pictures: usize,
    prefill: Duration,
    decode: Duration,
    items: usize,
    tokens: usize,
}

impl<'a> Candidate<'a> {
    fn new(
        model: &'a Arc<Model>,
        args: &EvalArgs,
        pictures: &[Picture],
        cancel: &CancelToken,
    ) -> anyhow::Result<Self> {
        let mut limits = args.machine.limits();
        let most = pictures.iter().map(|p| p.items.len()).max().unwrap_or(1);
        limits.batch = args.batch.map_or(BATCH_MAX, |n| n as usize).min(most);
        limits.pictures = pictures.iter().map(|p| p.paths.len()).max().unwrap_or(1);
        limits.new_tokens = args.max_new_tokens.map_or(NEW_TOKENS, |n| n as usize);
        // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
        let longest = pictures.iter().flat_map(|p| &p.items).map(|i| i.prompt.len() + 2).max().unwrap_or(0);
        limits.prompt_tokens = longest.clamp(PROMPT_TOKENS.0, PROMPT_TOKENS.1);
        let session = Session::new(model, &limits).context("cannot start a session")?;
        let mut options = GenerateOptions::default();
        options.cancel = cancel.clone();
        Ok(Self {
            features: (0..limits.pictures).map(|_| session.new_features()).collect::<Result<_, _>>()?,
            session,
            scorer: Scorer::of(model)?,
            options,
            tallies: Default::default(),
            times: Times::default(),
        })
    }

    fn encode(&mut self, pictures: &[RgbImage]) -> palmtop::Result<()> {
        for (picture, features) in pictures.iter().zip(&mut self.features) {
            self.session.encode(picture.view(), features, &self.options)?;
            self.times.encode += self.session.timings().encode;
            self.times.pictures += 1;
        }
        Ok(())
    }

    /// Answers prompts together; those of which one cannot be answered one by one. An error ends it all.
    fn answer(&mut self, images: usize, prompts: &[&str]) -> palmtop::Result<Vec<palmtop::Result<Answer>>> {
        let go_on = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
        let pictures: Vec<&ImageFeatures> = self.features.iter().take(images).collect();
        let requests: Vec<Request<'_>> =
            prompts.iter().map(|prompt| Request { pictures: &pictures, prompt, draft: &[] }).collect();
        match self.session.answer_requests(&requests, &self.options, go_on) {
            Ok(answers) => {
                let answers: Vec<_> = answers.iter().cloned().map(Ok).collect();
                let timings = self.session.timings();
                self.times.prefill += timings.prefill;
                self.times.decode += timings.decode;
                Ok(answers)
            }
            Err(error) if !is_of_one_prompt(&error) => Err(error),
            Err(error) if prompts.len() == 1 => Ok(vec![Err(error)]),
            Err(_) => {
                let mut out = Vec::with_capacity(prompts.len());
                for prompt in prompts {
                    out.extend(self.answer(images, &[prompt])?);
                }
                Ok(out)
            }
        }
    }
}

/// Whether other prompts may fare better.
fn is_of_one_prompt(error: &palmtop::Error) -> bool {
    matches!(error, palmtop::Error::Usage(_) | palmtop::Error::Tokenizer(_))
}

/// An item that was answered by every model.
struct ItemResult {
    item: Item,
    /// Of each model its answer's text, and what it is worth.
    answers: Vec<(String, AnswerSummary)>,
}

/// What is kept of [`ItemScores`] for each item.
#[derive(Clone, Copy, Debug)]
struct AnswerSummary {
    is_exact: Option<bool>,
    overlap: Option<f64>,
    mask_iou: Option<f64>,
    tokens: usize,
    stop: StopReason,
}

/// An item that could not be answered.
struct Failure {
    line: usize,
    image: String,
    error: String,
}

/// What has been found out so far.
struct Run {
    results: Vec<ItemResult>,
    failures: Vec<Failure>,
    agreement: [Agreement; TaskKind::ALL.len()],
}

impl Run {
    /// Answers all items about a picture, or several together, with every model. What is at fault is reported, and only
    /// what ends everything is an error.
    fn picture(
        &mut self,
        mut picture: Picture,
        candidates: &mut [Candidate<'_>],
        teacher_forcing: &mut Option<TeacherForcing>,
        args: &EvalArgs,
        cancel: &CancelToken,
    ) -> anyhow::Result<()> {
        let decode = |path: &PathBuf| decode_file(path, &ImageLimits::default());
        let paths = picture.paths.iter().map(|path| Some(path.as_path()));
        let decoded: Result<Vec<RgbImage>, _> =
            interrupt::while_reading(paths, || picture.paths.iter().map(decode).collect());
        let images = match decoded {
            Ok(images) => images,
            Err(error) => {
                self.fail(picture.items, &error.into());
                return Ok(());
            }
        };
        if let Err(error) = place_boxes(&mut picture, &images[0]) {
            self.fail(picture.items, &error);
            return Ok(());
        }
        for candidate in &mut *candidates {
            match candidate.encode(&images) {
                Ok(()) => {}
                Err(palmtop::Error::Cancelled) => return Ok(()),
                Err(error @ palmtop::Error::Image(_)) => {
                    self.fail(picture.items, &error.into());
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let batch = args.batch.map_or(BATCH_MAX, |n| n as usize);
        let mut items = picture.items.into_iter();
        loop {
            let batch: Vec<Item> = items.by_ref().take(batch).collect();
            if batch.is_empty() || cancel.is_cancelled() {
                return Ok(());
            }
            match self.batch(batch, &images, candidates, teacher_forcing, cancel) {
                Err(error) if cancel.is_cancelled() && error.is::<palmtop::Error>() => return Ok(()),
                done => done?,
            }
        }
    }

    fn batch(
        &mut self,
        items: Vec<Item>,
        images: &[RgbImage],
        candidates: &mut [Candidate<'_>],
        teacher_forcing: &mut Option<TeacherForcing>,
        cancel: &CancelToken,
    ) -> anyhow::Result<()> {
        let prompts: Vec<&str> = items.iter().map(|i| i.prompt.as_str()).collect();
        let answers =
            candidates.iter_mut().map(|c| c.answer(images.len(), &prompts)).collect::<Result<Vec<_>, _>>()?;
        let mut answers: Vec<_> = answers.into_iter().map(Vec::into_iter).collect();
        for item in items {
            let of_item: Result<Vec<Answer>, _> =
                answers.iter_mut().map(|a| a.next().expect("an answer for each prompt")).collect();
            let of_item = match of_item {
                Ok(of_item) => of_item,
                Err(error) => {
                    self.fail(vec![item], &error.into());
                    continue;
                }
            };
            // What was broken off says nothing about the model.
            if of_item.iter().any(|a| a.stop.is_broken_off()) {
                continue;
            }
            let mask = match expected_mask(&item, &images[0]) {
                Ok(mask) => mask,
                Err(error) => {
                    self.fail(vec![item], &error);
                    continue;
                }
            };
            self.item(item, images, mask, of_item, candidates, teacher_forcing, cancel)?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        item: Item,
        images: &[RgbImage],
        mask: Option<Pixels>,
        answers: Vec<Answer>,
        candidates: &mut [Candidate<'_>],
        teacher_forcing: &mut Option<TeacherForcing>,
        cancel: &CancelToken,
    ) -> anyhow::Result<()> {
        let task = item.task as usize;
        if let ([first, second], [a, b]) = (&mut *candidates, &answers[..]) {
            let mut agreement = Agreement::default();
            agreement.same.add(f64::from(u8::from(a.text == b.text)));
            if let Some(teacher_forcing) = teacher_forcing {
                let sessions = [first, second].map(|c| (&mut c.session, &c.features[..images.len()]));
                teacher_forcing.run(sessions, &item.prompt, a, cancel, &mut agreement)?;
            }
            self.agreement[task].add(&agreement);
        }
        let mut kept = Vec::with_capacity(answers.len());
        for (candidate, answer) in candidates.iter_mut().zip(answers) {
            let size = (images[0].width(), images[0].height());
            let scores = candidate.scorer.score(&item, size, mask.as_ref(), &answer)?;
            let ItemScores { is_exact, overlap, mask_iou, .. } = scores;
            candidate.tallies[task].add(scores);
            candidate.times.items += 1;
            candidate.times.tokens += answer.tokens.len();
            let (tokens, stop) = (answer.tokens.len(), answer.stop);
            kept.push((answer.text, AnswerSummary { is_exact, overlap, mask_iou, tokens, stop }));
        }
        self.results.push(ItemResult { item, answers: kept });
        Ok(())
    }

    fn fail(&mut self, items: Vec<Item>, error: &anyhow::Error) {
        let error = errors::in_one_line(error);
        let failure = |i: Item| Failure { line: i.line, image: i.image, error: error.clone() };
        self.failures.extend(items.into_iter().map(failure));
    }
}

/// Brings the expected boxes onto the picture, if they were drawn on one of another size.
fn place_boxes(picture: &mut Picture, image: &RgbImage) -> anyhow::Result<()> {
    let size = (image.width(), image.height());
    let Some(annotated) = picture.annotated_size.filter(|annotated| *annotated != size) else {
        return Ok(());
    };
    let orientation = orientation_of_file(&picture.paths[0], &ImageLimits::default())?;
    let placing = Placing::of(annotated, size, orientation)?;
    for item in &mut picture.items {
        if let Expected::Boxes(truths) = &mut item.expected {
            truths.iter_mut().for_each(|truth| placing.place(truth));
        }
    }
    Ok(())
}

/// The mask that an item names, which must be of the picture's size.
fn expected_mask(item: &Item, image: &RgbImage) -> anyhow::Result<Option<Pixels>> {
    let Some(path) = &item.mask else { return Ok(None) };
    let mask = decode_file(path, &ImageLimits::default())
        .with_context(|| format!("cannot use mask {}", path.display()))?;
    let sizes = [&mask, image].map(|p| (p.width(), p.height()));
    if sizes[0] != sizes[1] {
        let [(mask_width, mask_height), (width, height)] = sizes;
        return Err(anyhow!(
            "mask {} has {mask_width} × {mask_height} pixels and its picture {width} × {height}",
            path.display()
        ))
        .hint("a mask has the size of its picture, after its Exif orientation");
    }
    Ok(Some(Pixels::of_grey(&mask)))
}

impl Expected {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Boxes(_) | Self::Unknown => None,
        }
    }
}
