//! Turns bytes into calls of the C library: they select the function, the handle (live, freed or invalid), the sizes
//! and the strings. What must hold: no crash, no `PALMTOP_INTERNAL`, no success with a handle that is not live, and
//! each object can be freed exactly once.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

use palmtop_capi::*;

/// A model that answers in a moment.
pub fn tiny_model(folder: &Path) -> CString {
    let mut config = palmtop_convert::synthetic::preset("tiny").unwrap();
    config.vision.layers = 1;
    config.text.layers = 1;
    config.text.windows.truncate(1);
    let path = folder.join("tiny.palm");
    let tokenizer = include_bytes!("../../demo/tokenizer/tokenizer.json");
    let table = palmtop_convert::tokenizer::json::parse(tokenizer).unwrap().to_table().unwrap();
    let source = palmtop_convert::synthetic::Synthetic::new(config.clone(), 1);
    palmtop_convert::convert_source(&source, &config, table, &path, &Default::default(), &()).unwrap();
    CString::new(path.to_str().unwrap()).unwrap()
}

/// Bytes that decide; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Usually small, sometimes anything.
    fn size(&mut self) -> u32 {
        match self.byte() {
            255 => self.number(),
            254 => 0,
            small => u32::from(small),
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

/// Handles of a kind that have been given out.
#[derive(Default)]
struct Handles {
    all: Vec<u64>,
    live: BTreeSet<u64>,
}

impl Handles {
    /// One of them, mostly; at times another number.
    fn pick(&self, bytes: &mut Bytes) -> u64 {
        match bytes.byte() {
            255 => u64::from(bytes.number()) << 32 | u64::from(bytes.number()),
            254 => self.all.last().map_or(1, |id| id + 1),
            253 => 0,
            index if self.all.is_empty() => u64::from(index),
            index => self.all[usize::from(index) % self.all.len()],
        }
    }

    fn made(&mut self, status: i32, id: u64) {
        assert_eq!(status == PALMTOP_OK, id != 0, "a handle comes with success only");
        if id != 0 {
            assert!(self.live.insert(id), "a handle is given out once");
            self.all.push(id);
        }
    }

    /// After a call with `id`: it cannot have worked if that does not live.
    fn used(&self, status: i32, id: u64) {
        assert!(status != PALMTOP_OK || self.live.contains(&id), "{id:#x} does not live");
        assert!(status != PALMTOP_INVALID_HANDLE || !self.live.contains(&id) || id == 0);
    }

    fn freed(&mut self, status: i32, id: u64) {
        assert_eq!(status == PALMTOP_OK, self.live.remove(&id), "{id:#x}");
    }
}

struct World {
    models: Handles,
    sessions: Handles,
    features: Handles,
    results: Handles,
    grammars: Handles,
    watches: Handles,
    prefixes: Handles,
    /// Pictures encoded, calls that answered, prefixes computed.
    done: [usize; 3],
    pixels: Vec<u8>,
}

const TEXTS: [&[u8]; 9] = [
    b"caption en\0",
    b"detect cat ; dog\0",
    b"\0",
    b"\xff\xfe\0",
    b"<image>\0",
    b"a<image>b<eos>\0",
    b"<loc0000><loc0256><loc1023><loc0001><seg000> cat\0",
    "Größe 😀 猫\n\n\0".as_bytes(),
    b"yes\0",
];

/// What a watch is made of. Answers are short, since the model is random.
const QUESTIONS: [&CStr; 6] = [
    c"max_new_tokens = 2\n[[question]]\nname = \"ocr\"\nocr = true",
    c"max_new_tokens = 4\n[gate]\npixels = false\n[[question]]\ncaption = \"en\"\n[[question]]\nname = \"ocr\"\nocr = true\n\
      [[question.rule]]\nmatches = \".*\"\n[[camera]]\nname = \"a\"\n[[camera]]\nname = \"b\"",
    c"max_new_tokens = 24\n[[question]]\nsegment = \"cat\"\n[[question.rule]]\nname = \"many\"\nat_least = 1\n\
      [[question.rule]]\nappears = true",
    c"budget = \"1ms\"\n[gate]\npixels = false\nfeatures = false\n[[question]]\nask = \"x\"\nchoose = [\"yes\", \"no\"]",
    c"[[question]]\ndetect = 1",
    c"[[camera]]\nsource = \"-\"",
];

const COMMANDS: [&CStr; 6] = [c"ask", c"ask ocr", c"ask nobody", c"pause", c"resume", c"\xff"];

fn text(bytes: &mut Bytes) -> *const c_char {
    match bytes.byte() {
        255 => null(),
        index => TEXTS[usize::from(index) % TEXTS.len()].as_ptr().cast(),
    }
}

unsafe extern "C" fn on_piece(user: *mut c_void, piece: *const palmtop_piece) -> i32 {
    // SAFETY: the library's piece, and the number that `play` handed in.
    let (piece, left) = unsafe { (&*piece, &mut *user.cast::<i32>()) };
    // SAFETY: the piece's text, for the time of this call.
    let text = unsafe { std::slice::from_raw_parts(piece.text.cast::<u8>(), piece.length) };
    assert!(std::str::from_utf8(text).is_ok());
    *left -= 1;
    i32::from(*left < 0)
}

/// Plays all calls, then frees what is left. Gives how many pictures were encoded, how many calls answered, and how
/// many prefixes were computed.
pub fn play(bytes: &[u8], model: &CString) -> [usize; 3] {
    let mut bytes = Bytes(bytes);
    let mut world = World {
        models: Handles::default(),
        sessions: Handles::default(),
        features: Handles::default(),
        results: Handles::default(),
        grammars: Handles::default(),
        watches: Handles::default(),
        prefixes: Handles::default(),
        done: [0; 3],
        pixels: (0..40_000u32).map(|i| (i * 31 / 7) as u8).collect(),
    };
    while !bytes.0.is_empty() {
        let status = world.step(&mut bytes, model);
        assert_ne!(status, PALMTOP_INTERNAL);
        assert!((PALMTOP_OK..=PALMTOP_INTERNAL).contains(&status));
        // SAFETY: never null, and ends with a zero.
        let message = unsafe { CStr::from_ptr(palmtop_last_error()) };
        assert!(message.to_str().is_ok_and(|text| status == PALMTOP_OK || !text.is_empty()));
    }
    let done = world.done;
    world.models.live.iter().for_each(|&id| assert_eq!(palmtop_model_free(palmtop_model { id }), PALMTOP_OK));
    world.sessions.live.iter().for_each(|&id| assert_eq!(palmtop_session_free(palmtop_session { id }), 0));
    world.features.live.iter().for_each(|&id| assert_eq!(palmtop_features_free(palmtop_features { id }), 0));
    world.results.live.iter().for_each(|&id| assert_eq!(palmtop_result_free(palmtop_result { id }), 0));
    world.grammars.live.iter().for_each(|&id| assert_eq!(palmtop_grammar_free(palmtop_grammar { id }), 0));
    world.watches.live.iter().for_each(|&id| assert_eq!(palmtop_watch_free(palmtop_watch { id }), 0));
    world
        .prefixes
        .live
        .iter()
        .for_each(|&id| assert_eq!(palmtop_prefix_free(palmtop_prefix { id }), PALMTOP_OK));
    done
}

impl World {
    /// One call.
    fn step(&mut self, bytes: &mut Bytes, path: &CString) -> i32 {
        // SAFETY, for all of this function: every address is null, or that of memory of ours as large as is said; sizes
        // in structs are lied about only where the library refuses them before it looks further.
        match bytes.byte() % 34 {
            0 => {
                let mut model = palmtop_model::default();
                let kind = bytes.byte();
                let path = if kind > 250 { text(bytes) } else { path.as_ptr() };
                let open = if kind % 4 == 1 { palmtop_model_read } else { palmtop_model_open };
                // SAFETY: as above.
                let status = unsafe { open(path, &mut model) };
                self.models.made(status, model.id);
                status
            }
            1 => {
                let mut model = palmtop_model::default();
                let (data, n) = (self.pixels.as_ptr(), bytes.one_of(&[0, 1, 64, 4096, 40_000 - 64]));
                let data = data.wrapping_add(data.align_offset(64) * usize::from(bytes.byte() & 1));
                // SAFETY: as above; these bytes are no model.
                let status =
                    unsafe { palmtop_model_open_memory(data.cast(), n, None, null_mut(), &mut model) };
                assert_ne!(status, PALMTOP_OK);
                status
            }
            2 => {
                let id = self.models.pick(bytes);
                let mut session = palmtop_session::default();
                // SAFETY: an empty struct of integers and addresses.
                let mut options: palmtop_session_options = unsafe { std::mem::zeroed() };
                // SAFETY: as above.
                unsafe { palmtop_session_options_init(&mut options, size_of::<palmtop_session_options>()) };
                (options.batch, options.new_tokens, options.threads) =
                    (2, 4, 1 + u32::from(bytes.byte() % 2));
                (options.image_side, options.pictures, options.draft_tokens) = (4096, 2, 3);
                let lie = u32::from(bytes.byte());
                match lie {
                    255 => options.batch = bytes.number(),
                    254 => options.prompt_tokens = bytes.number() % 5000,
                    253 => options.new_tokens = bytes.number() % 5000,
                    252 => options.image_side = bytes.number(),
                    246 => options.pictures = bytes.number(),
                    245 => options.draft_tokens = bytes.number(),
                    244 => options.filter = bytes.number() as i32,
                    240..=243 => options.filter = i32::from(bytes.byte() % 4),
                    251 => options.kv = bytes.number() as i32,
                    248 => options.isa = bytes.number() as i32,
                    247 => options.isa = i32::from(bytes.byte() % 16),
                    250 => options.nice = bytes.number() as i32,
                    // Less than it has: what lies behind it is none of the library's business.
                    249 => options.size = bytes.number() as usize % (size_of_val(&options) + 1),
                    _ => {}
                }
                if self.sessions.live.len() > 4 {
                    return PALMTOP_OK;
                }
                // SAFETY: as above.
                let status = unsafe { palmtop_session_new(palmtop_model { id }, &options, &mut session) };
                self.sessions.made(status, session.id);
                self.models.used(status, id);
                status
            }
            3 => {
                let id = self.models.pick(bytes);
                let mut features = palmtop_features::default();
                // SAFETY: as above.
                let status = unsafe { palmtop_features_new(palmtop_model { id }, &mut features) };
                self.features.made(status, features.id);
                self.models.used(status, id);
                status
            }
            4..=7 => self.encode(bytes),
            8..=13 => self.answer(bytes),
            14 => {
                let id = self.models.pick(bytes);
                let texts = [text(bytes), text(bytes), text(bytes)];
                let mut grammar = palmtop_grammar::default();
                let count = usize::from(bytes.byte() % 4);
                // SAFETY: as above.
                let status = unsafe {
                    palmtop_grammar_choices(palmtop_model { id }, texts.as_ptr(), count, &mut grammar)
                };
                self.grammars.made(status, grammar.id);
                status
            }
            15 => {
                let id = self.models.pick(bytes);
                let status = palmtop_model_free(palmtop_model { id });
                self.models.freed(status, id);
                status
            }
            16 => {
                let id = self.sessions.pick(bytes);
                let status = palmtop_session_free(palmtop_session { id });
                self.sessions.freed(status, id);
                status
            }
            17 => {
                let id = self.features.pick(bytes);
                let status = palmtop_features_free(palmtop_features { id });
                self.features.freed(status, id);
                status
            }
            18 => {
                let id = self.results.pick(bytes);
                let status = palmtop_result_free(palmtop_result { id });
                self.results.freed(status, id);
                status
            }
            19 => {
                let id = self.grammars.pick(bytes);
                let status = palmtop_grammar_free(palmtop_grammar { id });
                self.grammars.freed(status, id);
                status
            }
            20 => {
                let id = self.sessions.pick(bytes);
                let session = palmtop_session { id };
                let cancels = bytes.byte() < 64;
                let status = if cancels {
                    palmtop_session_cancel(session)
                } else {
                    palmtop_session_reset_cancel(session)
                };
                self.sessions.used(status, id);
                status
            }
            21 => self.result(bytes),
            22 => {
                let texts = [text(bytes), text(bytes)];
                let mut buffer = [0; 40];
                let (mut length, n) = (0, usize::from(bytes.byte() % 41));
                let (task, language) = (bytes.size() as i32, text(bytes));
                let count = usize::from(bytes.byte() % 3);
                // SAFETY: as above.
                unsafe {
                    palmtop_prompt(task, language, texts.as_ptr(), count, buffer.as_mut_ptr(), n, &mut length)
                }
            }
            23 => self.new_watch(bytes),
            24 | 25 => self.watch_frame(bytes),
            26 => self.watch(bytes),
            27..=29 => self.answer_requests(bytes),
            30 => self.new_prefix(bytes),
            31 => self.compute_prefix(bytes),
            32 => self.prefix(bytes),
            _ => {
                let id = self.features.pick(bytes);
                let (mut width, mut height) = (7, 7);
                // SAFETY: as above.
                let status =
                    unsafe { palmtop_features_get_picture(palmtop_features { id }, &mut width, &mut height) };
                self.features.used(status, id);
                status
            }
        }
    }

    fn encode(&mut self, bytes: &mut Bytes) -> i32 {
        let (session, features) = (self.sessions.pick(bytes), self.features.pick(bytes));
        let pixels = self.picture(bytes);
        let all = self.pixels.as_ptr();
        let mut options =
            palmtop_encode_options { size: size_of::<palmtop_encode_options>(), deadline_ns: 0 };
        if bytes.byte() > 240 {
            options.deadline_ns = bytes.one_of(&[1, 1000, u64::MAX]);
        }
        let (handles, options) =
            ((palmtop_session { id: session }, palmtop_features { id: features }), &options);
        // SAFETY: planes are parts of `pixels`; the struct is as large as is said.
        let status = unsafe {
            match bytes.byte() {
                255 => palmtop_encode_file(handles.0, handles.1, all.cast(), self.pixels.len(), options),
                _ => palmtop_encode_pixels(handles.0, handles.1, &pixels, options),
            }
        };
        self.used(status, session, &[features]);
        self.done[0] += usize::from(status == PALMTOP_OK);
        status
    }

    /// A picture, or something like one. Its planes are parts of ours.
    fn picture(&self, bytes: &mut Bytes) -> palmtop_pixels {
        // SAFETY: an empty struct of integers and addresses.
        let mut pixels: palmtop_pixels = unsafe { std::mem::zeroed() };
        let format = i32::from(bytes.byte() % 10);
        let (width, height) = (bytes.size(), bytes.size());
        let all = self.pixels.as_ptr();
        // SAFETY: the struct is as large as is said; the pixels are not read.
        let made = unsafe {
            palmtop_pixels_init(
                &mut pixels,
                size_of::<palmtop_pixels>(),
                format,
                width,
                height,
                all.cast(),
                self.pixels.len(),
            )
        };
        if made != PALMTOP_OK {
            (pixels.format, pixels.width, pixels.height) = (format, width, height);
            pixels.size = size_of::<palmtop_pixels>();
        }
        if bytes.byte() > 128 || made != PALMTOP_OK {
            for plane in &mut pixels.planes {
                let from = bytes.number() as usize % 20_000;
                plane.data = if bytes.byte() > 250 { null() } else { all.wrapping_add(from) };
                plane.bytes = self.pixels.len() - from - bytes.size() as usize % 20_000;
                plane.stride = bytes.size() as usize;
                plane.step = usize::from(bytes.byte() % 4);
            }
        }
        pixels.rotation = bytes.one_of(&[0, 90, 180, 270, 1, u32::MAX]);
        pixels.color = i32::from(bytes.byte() % 5);
        pixels
    }

    fn new_watch(&mut self, bytes: &mut Bytes) -> i32 {
        let id = self.models.pick(bytes);
        let mut watch = palmtop_watch::default();
        // SAFETY: empty structs of integers and addresses.
        let (mut options, mut limits): (palmtop_watch_options, palmtop_session_options) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: the structs are as large as is said.
        unsafe {
            palmtop_watch_options_init(&mut options, size_of::<palmtop_watch_options>());
            palmtop_session_options_init(&mut limits, size_of::<palmtop_session_options>());
        }
        (limits.threads, limits.image_side) = (1, 4096);
        options.session = &limits;
        options.all_answers = u32::from(bytes.byte() & 1);
        options.recording = u32::from(bytes.byte() & 1);
        let questions = match bytes.byte() {
            index if index > 230 => text(bytes),
            index => QUESTIONS[usize::from(index) % QUESTIONS.len()].as_ptr(),
        };
        if self.watches.live.len() > 2 {
            return PALMTOP_OK;
        }
        // SAFETY: as in `step`.
        let status = unsafe { palmtop_watch_new(palmtop_model { id }, questions, &options, &mut watch) };
        self.watches.made(status, watch.id);
        self.models.used(status, id);
        status
    }

    fn watch_frame(&mut self, bytes: &mut Bytes) -> i32 {
        let id = self.watches.pick(bytes);
        let pixels = self.picture(bytes);
        let camera = u32::from(bytes.byte() % 3);
        let time = bytes.one_of(&[0, 0, 1, 1_000_000_000, u64::MAX]);
        // SAFETY: an empty struct of integers.
        let mut report: palmtop_watch_report = unsafe { std::mem::zeroed() };
        report.size = bytes.one_of(&[size_of_val(&report), size_of_val(&report), 0]);
        // SAFETY: planes are parts of `pixels`; a size of zero is refused.
        let status = unsafe { palmtop_watch_frame(palmtop_watch { id }, camera, &pixels, time, &mut report) };
        self.watches.used(status, id);
        status
    }

    /// All that is done with a watch beside giving it frames.
    fn watch(&mut self, bytes: &mut Bytes) -> i32 {
        let id = self.watches.pick(bytes);
        let watch = palmtop_watch { id };
        let index = usize::from(bytes.byte() % 3);
        // SAFETY: empty structs of numbers and addresses, as large as is said; the mask's buffer too; texts are texts.
        let status = unsafe {
            let mut record: palmtop_record = std::mem::zeroed();
            let mut object: palmtop_object = std::mem::zeroed();
            let mut mask: palmtop_mask = std::mem::zeroed();
            let mut counts: palmtop_watch_counts = std::mem::zeroed();
            (record.size, object.size) = (size_of_val(&record), size_of_val(&object));
            (mask.size, counts.size) = (size_of_val(&mask), size_of_val(&counts));
            let mut pixels = [0; 500];
            let (mut json, mut length) = (null(), 0);
            match bytes.byte() % 16 {
                0..=3 => {
                    let status = palmtop_watch_next(watch, &mut record);
                    if status == PALMTOP_OK {
                        let strings = [record.camera, record.question, record.rule, record.id, record.text];
                        for string in strings {
                            assert!(CStr::from_ptr(string).to_str().is_ok());
                        }
                    }
                    status
                }
                4 => palmtop_watch_get_object(watch, index, &mut object),
                5 => palmtop_watch_get_mask(watch, index, &mut mask, pixels.as_mut_ptr(), pixels.len()),
                6 | 7 => {
                    let status = palmtop_watch_record_json(watch, &mut json, &mut length);
                    assert!(status != PALMTOP_OK || CStr::from_ptr(json).to_bytes().len() == length);
                    status
                }
                8 => palmtop_watch_end(watch),
                9 => palmtop_watch_get_counts(watch, &mut counts),
                10 => palmtop_watch_command(watch, bytes.one_of(&COMMANDS).as_ptr()),
                11 => palmtop_watch_set_prompt(watch, c"ocr".as_ptr(), text(bytes)),
                12 => palmtop_watch_cancel(watch),
                13 | 14 => palmtop_watch_reset_cancel(watch),
                _ => {
                    let status = palmtop_watch_free(watch);
                    self.watches.freed(status, id);
                    return status;
                }
            }
        };
        self.watches.used(status, id);
        status
    }

    fn answer(&mut self, bytes: &mut Bytes) -> i32 {
        let (session, features) = (self.sessions.pick(bytes), self.features.pick(bytes));
        let mut left = 0;
        let options = self.answer_options(bytes, &mut left);
        let texts = [text(bytes), text(bytes), text(bytes)];
        let count = usize::from(bytes.byte() % 4);
        let mut result = palmtop_result::default();
        let place = if bytes.byte() > 200 { null_mut() } else { &raw mut result };
        // SAFETY: three texts; the callback's number lives until the call returns.
        let status = unsafe {
            palmtop_answer(
                palmtop_session { id: session },
                palmtop_features { id: features },
                texts.as_ptr(),
                count,
                &options,
                place,
            )
        };
        self.answered(status, result, &options, session, &[features]);
        status
    }

    fn answer_requests(&mut self, bytes: &mut Bytes) -> i32 {
        let session = self.sessions.pick(bytes);
        let mut left = 0;
        let options = self.answer_options(bytes, &mut left);
        let mut features = Vec::new();
        let mut parts = [(0, 0); 3];
        let count = usize::from(bytes.byte() % 4);
        for part in &mut parts[..count] {
            *part = (features.len(), bytes.one_of(&[1, 1, 2, 2, 3, 0]));
            features.extend((0..part.1).map(|_| self.features.pick(bytes)));
        }
        let pictures: Vec<_> = features.iter().map(|&id| palmtop_features { id }).collect();
        let draft: [u32; 4] = std::array::from_fn(|_| bytes.size());
        let requests = parts.map(|(first, picture_count)| palmtop_request {
            size: bytes.one_of(&[size_of::<palmtop_request>(), size_of::<palmtop_request>(), 0]),
            prompt: text(bytes),
            pictures: if bytes.byte() > 250 { null() } else { pictures.as_ptr().wrapping_add(first) },
            picture_count,
            draft: if bytes.byte() > 250 { null() } else { draft.as_ptr() },
            draft_count: usize::from(bytes.byte() % 5),
        });
        let mut result = palmtop_result::default();
        let place = if bytes.byte() > 200 { null_mut() } else { &raw mut result };
        // SAFETY: three requests, whose lists are as long as they say; a size of zero is refused; the callback's number
        // lives until the call returns.
        let status = unsafe {
            palmtop_answer_requests(
                palmtop_session { id: session },
                requests.as_ptr(),
                count,
                &options,
                place,
            )
        };
        self.answered(status, result, &options, session, &features);
        status
    }

    /// How to answer. `left` are pieces until the callback ends the answer.
    fn answer_options(&mut self, bytes: &mut Bytes, left: &mut i32) -> palmtop_answer_options {
        // SAFETY: an empty struct of numbers and addresses.
        let mut options: palmtop_answer_options = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is as large as is said.
        unsafe { palmtop_answer_options_init(&mut options, size_of::<palmtop_answer_options>()) };
        options.max_new_tokens = bytes.one_of(&[0, 0, 1, 2, 4, 5, u32::MAX]);
        options.temperature = bytes.one_of(&[0.0, 0.0, 0.7, 1e-30, 1e30, -1.0, f32::NAN, f32::INFINITY]);
        options.top_p = bytes.one_of(&[0.0, 0.0, 0.9, 1e-30, 2.0, -1.0, f32::NAN]);
        options.top_k = bytes.size();
        options.ignore_end = u32::from(bytes.byte() & 1);
        if bytes.byte() > 200 {
            options.grammar.id = self.grammars.pick(bytes);
        }
        if bytes.byte() > 240 {
            options.deadline_ns = bytes.one_of(&[1, 1000, u64::MAX]);
        }
        *left = i32::from(bytes.byte());
        options.on_piece = Some(on_piece);
        options.piece_user = (left as *mut i32).cast();
        options
    }

    /// After a question.
    fn answered(
        &mut self,
        status: i32,
        result: palmtop_result,
        options: &palmtop_answer_options,
        session: u64,
        features: &[u64],
    ) {
        if result.id != 0 {
            assert!([PALMTOP_OK, PALMTOP_CANCELLED, PALMTOP_DEADLINE].contains(&status));
            self.results.made(PALMTOP_OK, result.id);
        }
        self.done[1] += usize::from(status == PALMTOP_OK);
        if options.grammar.id == 0 || self.grammars.live.contains(&options.grammar.id) {
            self.used(status, session, features);
        }
    }

    fn new_prefix(&mut self, bytes: &mut Bytes) -> i32 {
        let id = self.models.pick(bytes);
        let mut prefix = palmtop_prefix::default();
        let mut taken = 7;
        // SAFETY: an empty struct of integers.
        let mut options: palmtop_prefix_options = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is as large as is said.
        unsafe { palmtop_prefix_options_init(&mut options, size_of::<palmtop_prefix_options>()) };
        (options.pictures, options.tokens) = (u32::from(bytes.byte() % 4), u32::from(bytes.byte()));
        (options.keys_values, options.hidden) = (u32::from(bytes.byte() & 1), u32::from(bytes.byte() & 1));
        // SAFETY: as in `step`.
        let status = unsafe { palmtop_prefix_plan(palmtop_model { id }, &options, &mut taken) };
        assert!(status != PALMTOP_OK || taken < 1 << 30);
        // SAFETY: as in `step`.
        let status = unsafe { palmtop_prefix_new(palmtop_model { id }, &options, &mut prefix) };
        self.prefixes.made(status, prefix.id);
        self.models.used(status, id);
        status
    }

    fn compute_prefix(&mut self, bytes: &mut Bytes) -> i32 {
        let (session, prefix) = (self.sessions.pick(bytes), self.prefixes.pick(bytes));
        let count = usize::from(bytes.byte() % 4);
        let features: Vec<u64> = (0..count).map(|_| self.features.pick(bytes)).collect();
        let pictures: Vec<_> = features.iter().map(|&id| palmtop_features { id }).collect();
        let tokens: [u32; 4] = std::array::from_fn(|_| bytes.size());
        // SAFETY: an empty struct of integers and addresses.
        let mut request: palmtop_prefix_request = unsafe { std::mem::zeroed() };
        request.size =
            bytes.one_of(&[size_of_val(&request), size_of_val(&request), size_of_val(&request), 0]);
        (request.pictures, request.picture_count) = (pictures.as_ptr(), count);
        request.open = u32::from(bytes.byte() & 1);
        match bytes.byte() % 4 {
            0 => (request.tokens, request.token_count) = (tokens.as_ptr(), usize::from(bytes.byte() % 5)),
            1 if bytes.byte() > 200 => request.token_count = bytes.number() as usize,
            _ => request.text = text(bytes),
        }
        if bytes.byte() > 240 {
            request.deadline_ns = bytes.one_of(&[1, 1000, u64::MAX]);
        }
        // SAFETY: lists are as long as they say, or null; a size of zero is refused.
        let status = unsafe {
            palmtop_compute_prefix(palmtop_session { id: session }, palmtop_prefix { id: prefix }, &request)
        };
        self.done[2] += usize::from(status == PALMTOP_OK);
        // A picture that is missing is none.
        let live = |id: &u64| *id == 0 || self.features.live.contains(id);
        let lives = self.sessions.live.contains(&session)
            && self.prefixes.live.contains(&prefix)
            && features.iter().all(live);
        assert!(status != PALMTOP_OK || lives);
        assert!(status != PALMTOP_INVALID_HANDLE || !lives);
        status
    }

    /// Looks at a prefix, and at times frees it.
    fn prefix(&mut self, bytes: &mut Bytes) -> i32 {
        let id = self.prefixes.pick(bytes);
        let prefix = palmtop_prefix { id };
        if bytes.byte() > 200 {
            let status = palmtop_prefix_free(prefix);
            self.prefixes.freed(status, id);
            return status;
        }
        // SAFETY: an empty struct of integers and addresses.
        let mut info: palmtop_prefix_info = unsafe { std::mem::zeroed() };
        info.size = size_of_val(&info);
        // SAFETY: the struct is as large as is said.
        let status = unsafe { palmtop_prefix_get_info(prefix, &mut info) };
        self.prefixes.used(status, id);
        if status == PALMTOP_OK && !info.keys.is_null() {
            let numbers = [info.layers, info.rows, info.kv_heads, info.head_dim];
            let numbers = numbers.map(|n| n as usize).iter().product();
            // SAFETY: as many numbers are there, and nobody writes them.
            let (keys, mask) = unsafe {
                let keys = std::slice::from_raw_parts(info.keys, numbers);
                (keys, std::slice::from_raw_parts(info.mask, info.rows as usize))
            };
            assert!(keys.iter().all(|key| key.is_finite()) && mask.iter().all(|&there| there < 2));
        }
        status
    }

    /// After a call with a session and features.
    fn used(&self, status: i32, session: u64, features: &[u64]) {
        let lives = self.sessions.live.contains(&session)
            && features.iter().all(|id| self.features.live.contains(id));
        assert!(status != PALMTOP_OK || lives);
        assert!(status != PALMTOP_INVALID_HANDLE || !lives);
    }

    fn result(&mut self, bytes: &mut Bytes) -> i32 {
        let id = self.results.pick(bytes);
        let result = palmtop_result { id };
        assert!(palmtop_result_count(result) == 0 || self.results.live.contains(&id));
        let (answer, index) = (usize::from(bytes.byte() % 4), usize::from(bytes.byte() % 3));
        // SAFETY: empty structs of numbers and addresses, as large as is said; the mask's buffer too.
        let status = unsafe {
            let mut info: palmtop_answer_info = std::mem::zeroed();
            let mut object: palmtop_object = std::mem::zeroed();
            let mut mask: palmtop_mask = std::mem::zeroed();
            let mut pixels = [0; 500];
            (info.size, object.size, mask.size) =
                (size_of_val(&info), size_of_val(&object), size_of_val(&mask));
            match bytes.byte() % 3 {
                0 => palmtop_result_get_answer(result, answer, &mut info),
                1 => palmtop_result_get_object(result, answer, index, &mut object),
                _ => palmtop_result_get_mask(
                    result,
                    answer,
                    index,
                    &mut mask,
                    pixels.as_mut_ptr(),
                    pixels.len(),
                ),
            }
        };
        self.results.used(status, id);
        status
    }
}
