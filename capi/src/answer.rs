//! Questions to a session, and grammars that restrict the answers.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::{Arc, RwLockReadGuard};

use palmtop::{Answer, DefaultFloatMode, Error, Grammar, ImageFeatures, Request, Sampling, StopReason};
use smallvec::SmallVec;

use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, Result, call, palmtop_status};
use crate::handles::handle;
use crate::model::{MODELS, palmtop_model};
use crate::picture::{FEATURES, FeaturesEntry, palmtop_features};
use crate::result::{RESULTS, ResultEntry, palmtop_result};
use crate::session::{SESSIONS, State, palmtop_session, try_lock};

handle!(palmtop_grammar, GRAMMARS: Grammar, 5, "grammar");

/// Prompts of a call at most; what is known of them stands on the stack.
const PROMPTS_MAX: usize = 256;
/// Pictures of all prompts of a call at most; what keeps them stands on the stack, too.
pub(crate) const PICTURES_MAX: usize = 512;
/// Tokens of a draft at most: those of the longest answer that a session can be made for.
const DRAFT_MAX: usize = 1 << 20;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_piece {
    pub size: usize,
    pub text: *const c_char,
    pub length: usize,
    pub prompt: u32,
    pub token: i32,
}

pub type palmtop_piece_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, piece: *const palmtop_piece) -> i32>;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_answer_options {
    pub size: usize,
    pub deadline_ns: u64,
    pub seed: u64,
    pub grammar: palmtop_grammar,
    pub max_new_tokens: u32,
    pub top_k: u32,
    pub temperature: f32,
    pub top_p: f32,
    pub ignore_end: u32,
    pub reserved: u32,
    pub on_piece: palmtop_piece_callback,
    pub piece_user: *mut c_void,
}

// SAFETY: numbers, an address and a nullable function, the first a `usize`.
unsafe impl Versioned for palmtop_answer_options {
    const NAME: &'static str = "palmtop_answer_options";
    const FIRST_BYTES: usize = size_of::<Self>();
}

const DEFAULT_ANSWER_OPTIONS: palmtop_answer_options = palmtop_answer_options {
    size: size_of::<palmtop_answer_options>(),
    deadline_ns: 0,
    seed: 0,
    grammar: palmtop_grammar { id: 0 },
    max_new_tokens: 0,
    top_k: 0,
    temperature: 0.0,
    top_p: 0.0,
    ignore_end: 0,
    reserved: 0,
    on_piece: None,
    piece_user: std::ptr::null_mut(),
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_request {
    pub size: usize,
    pub prompt: *const c_char,
    pub pictures: *const palmtop_features,
    pub picture_count: usize,
    pub draft: *const u32,
    pub draft_count: usize,
}

// SAFETY: integers and addresses, the first a `usize`.
unsafe impl Versioned for palmtop_request {
    const NAME: &'static str = "palmtop_request";
    const FIRST_BYTES: usize = size_of::<Self>();
}

const NO_REQUEST: palmtop_request = palmtop_request {
    size: size_of::<palmtop_request>(),
    prompt: std::ptr::null(),
    pictures: std::ptr::null(),
    picture_count: 0,
    draft: std::ptr::null(),
    draft_count: 0,
};

fn sampling(options: &palmtop_answer_options) -> Result<Sampling> {
    let at_least_zero = |name: &str, value: f32| {
        if value.is_finite() && value >= 0.0 {
            return Ok(value);
        }
        Err(Failure::argument(format!("{name} is {value}, which is not 0 or more")))
    };
    Ok(Sampling {
        temperature: at_least_zero("the temperature", options.temperature)?,
        top_k: options.top_k as usize,
        top_p: at_least_zero("top_p", options.top_p)?,
        seed: options.seed,
    })
}

/// # Safety
/// `options` is null, or can be written as far as `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_answer_options_init(
    options: *mut palmtop_answer_options,
    size: usize,
) -> palmtop_status {
    // SAFETY: as this function's.
    call(|| unsafe { arguments::init(options, size, DEFAULT_ANSWER_OPTIONS) })
}

/// What a call of the caller has to give.
///
/// # Safety
/// `options` is null, or can be read as far as its size; `result` is null or writable.
unsafe fn wanted(
    options: *const palmtop_answer_options,
    result: *mut palmtop_result,
) -> Result<(palmtop_answer_options, Option<Out<palmtop_result>>)> {
    let is_wanted = !result.is_null();
    // SAFETY: as this function's.
    unsafe {
        let out = is_wanted.then(|| Out::new("result", result, palmtop_result::default())).transpose()?;
        Ok((arguments::options(options, DEFAULT_ANSWER_OPTIONS)?, out))
    }
}

/// The features of pictures, each kept alive.
type Entries = SmallVec<[Arc<FeaturesEntry>; PICTURES_MAX]>;
/// The same, read by this call.
type Guards<'a> = SmallVec<[RwLockReadGuard<'a, ImageFeatures>; PICTURES_MAX]>;

/// Features that nobody writes.
fn read(entries: &[Arc<FeaturesEntry>]) -> Result<Guards<'_>> {
    entries.iter().map(|entry| try_lock(entry.features.try_read(), "features")).collect()
}

/// # Safety
/// `prompts` is null, or has `count` texts. `options` is null, or can be read as far as its size, and its callback is
/// as `palmtop.h` says. `result` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_answer(
    session: palmtop_session,
    features: palmtop_features,
    prompts: *const *const c_char,
    count: usize,
    options: *const palmtop_answer_options,
    result: *mut palmtop_result,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (options, out) = unsafe { wanted(options, result)? };
        // SAFETY: as this function's.
        let prompts = unsafe { arguments::texts("prompt", prompts, count, PROMPTS_MAX)? };
        let prompts: SmallVec<[&str; PROMPTS_MAX]> = prompts.collect::<Result<_>>()?;
        let grammar = grammar(&options)?;
        let (session, features) = (SESSIONS.get(session.id)?, FEATURES.get(features.id)?);
        let mut state = session.lock()?;
        let features = try_lock(features.features.try_read(), "features")?;
        let pictures = [&*features];
        let requests: SmallVec<[Request<'_>; PROMPTS_MAX]> =
            prompts.iter().map(|prompt| Request { pictures: &pictures, prompt, draft: &[] }).collect();
        answer(&mut state, &requests, &options, grammar, out)
    })
}

/// # Safety
/// `requests` is null, or has `count` structs that can be read as far as the size of the first; each of their lists is
/// null, or as long as they say, and their prompts are null or texts. `options` is null, or can be read as far as its
/// size, and its callback is as `palmtop.h` says. `result` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_answer_requests(
    session: palmtop_session,
    requests: *const palmtop_request,
    count: usize,
    options: *const palmtop_answer_options,
    result: *mut palmtop_result,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (options, out) = unsafe { wanted(options, result)? };
        // SAFETY: as this function's.
        let given = unsafe { arguments::structs("request", requests, count, PROMPTS_MAX, NO_REQUEST)? };
        let given: SmallVec<[palmtop_request; PROMPTS_MAX]> = given.collect::<Result<_>>()?;
        let grammar = grammar(&options)?;
        let session = SESSIONS.get(session.id)?;
        let pictures = given.iter().fold(0, |n: usize, one| n.saturating_add(one.picture_count));
        arguments::check_count("picture", pictures, PICTURES_MAX)?;
        let mut entries = Entries::new();
        for one in &given {
            // SAFETY: as this function's.
            let pictures =
                unsafe { arguments::list("picture", one.pictures, one.picture_count, PICTURES_MAX)? };
            for picture in pictures {
                entries.push(FEATURES.get(picture.id)?);
            }
        }
        let mut state = session.lock()?;
        let guards = read(&entries)?;
        let pictures: SmallVec<[&ImageFeatures; PICTURES_MAX]> =
            guards.iter().map(|guard| &**guard).collect();
        let mut requests = SmallVec::<[Request<'_>; PROMPTS_MAX]>::new();
        let mut pictures = &pictures[..];
        for (i, one) in given.iter().enumerate() {
            let (its, others) = pictures.split_at(one.picture_count);
            pictures = others;
            // SAFETY: as this function's.
            let (prompt, draft) = unsafe {
                let draft = arguments::list("draft token", one.draft, one.draft_count, DRAFT_MAX)?;
                (arguments::text(format_args!("prompt {i}"), one.prompt)?, draft)
            };
            requests.push(Request { pictures: its, prompt, draft });
        }
        answer(&mut state, &requests, &options, grammar, out)
    })
}

fn grammar(options: &palmtop_answer_options) -> Result<Option<Grammar>> {
    match options.grammar.id {
        0 => Ok(None),
        id => Ok(Some(Grammar::clone(&*GRAMMARS.get(id)?))),
    }
}

/// Answers requests, and gives the result if there is a place for it.
fn answer(
    state: &mut State,
    requests: &[Request<'_>],
    options: &palmtop_answer_options,
    grammar: Option<Grammar>,
    out: Option<Out<palmtop_result>>,
) -> Result<()> {
    state.options.deadline = crate::instant(options.deadline_ns);
    state.options.max_new_tokens = (options.max_new_tokens > 0).then_some(options.max_new_tokens as usize);
    state.options.sampling = sampling(options)?;
    state.options.stop_at_eos = options.ignore_end == 0;
    state.options.grammar = grammar;
    let mut on_piece = |piece: palmtop::Piece<'_>| {
        let Some(function) = options.on_piece else { return ControlFlow::Continue(()) };
        let piece = palmtop_piece {
            size: size_of::<palmtop_piece>(),
            text: piece.text.as_ptr().cast(),
            length: piece.text.len(),
            prompt: piece.prompt as u32,
            token: piece.token.map_or(-1, |token| token as i32),
        };
        // The function may leave another mode of floating point behind.
        let _mode = DefaultFloatMode::enter();
        // SAFETY: as the caller promises; the piece lives until the function returns.
        match unsafe { function(options.piece_user, &raw const piece) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    };
    let answered = state.session.answer_requests(requests, &state.options, &mut on_piece);
    state.options.grammar = None;
    answered?;
    let answers = &state.session.answers()[..requests.len()];
    let cut = answers.iter().find_map(|answer| match answer.stop {
        StopReason::Cancelled => Some(Error::Cancelled),
        StopReason::DeadlinePassed => Some(Error::DeadlinePassed),
        StopReason::EndOfSequence | StopReason::TokenLimit | StopReason::Callback => None,
    });
    // There is no result of answers none of which was begun.
    let begun = answers.iter().any(Answer::is_begun);
    if let Some(out) = out.filter(|_| begun) {
        let entry = ResultEntry::new(state.session.model().clone(), answers, requests)?;
        out.give(palmtop_result { id: RESULTS.insert(Arc::new(entry))? });
    }
    cut.map_or(Ok(()), |error| Err(error.into()))
}

/// # Safety
/// `choices` is null, or has `count` texts; `grammar` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_grammar_choices(
    model: palmtop_model,
    choices: *const *const c_char,
    count: usize,
    grammar: *mut palmtop_grammar,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("grammar", grammar, palmtop_grammar::default())? };
        let model = MODELS.get(model.id)?;
        // SAFETY: as this function's.
        let texts = unsafe { arguments::texts("choice", choices, count, 1 << 20)? };
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let made = Grammar::choices(&model, texts).map_err(Error::from)?;
        out.give(palmtop_grammar { id: GRAMMARS.insert(Arc::new(made))? });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_grammar_free(grammar: palmtop_grammar) -> palmtop_status {
    call(|| GRAMMARS.remove(grammar.id).map(drop))
}
