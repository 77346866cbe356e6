//! `palmtop.pull`: a model of the hub.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palmtop_convert::{Formats, Options, Progress, Recipe};
use palmtop_hub::{AdapterSource, Follower, HubError, Library, RepositoryName, Settings, Wanted, model_name};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::{Cancelled, Error, with_causes};

/// So often Python hears how far it is, and may say that it wants to end it.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How far a pull is: written by its threads, read by the caller's.
#[derive(Default)]
struct Far {
    done: AtomicU64,
    total: AtomicU64,
    is_over: AtomicBool,
    notes: Mutex<Vec<String>>,
}

impl Progress for Far {
    fn start(&self, total_bytes: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total_bytes, Ordering::Relaxed);
    }
    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
    fn resumed(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

fn to_python(error: HubError) -> PyErr {
    let mut message = with_causes(&error);
    if let Some(hint) = error.hint() {
        message = format!("{message}; {hint}");
    }
    match error {
        HubError::Name { .. } | HubError::NoShortName { .. } | HubError::Setting { .. } => {
            PyValueError::new_err(message)
        }
        HubError::Cancelled => Cancelled::new_err("the pull was ended; what has come is kept"),
        _ => Error::new_err(message),
    }
}

fn wrong_value(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Gives the model's path. `follow` is called with the bytes that have come and those that will, and the notes since
/// the last call; if it raises, the pull ends, and so it does with Ctrl-C.
#[pyfunction]
pub fn pull(
    py: Python<'_>,
    name: &str,
    path: PathBuf,
    weights: Option<&str>,
    recipe: Option<&str>,
    adapters: Vec<String>,
    follow: Bound<'_, PyAny>,
) -> PyResult<()> {
    let convert = weights.is_some() || recipe.is_some() || !adapters.is_empty();
    let of_all = weights.unwrap_or("int8").parse().map_err(wrong_value)?;
    let formats = Formats::from(Recipe::preset(of_all)).apply(recipe.unwrap_or("")).map_err(wrong_value)?;
    let wanted = Wanted {
        name: RepositoryName::from_argument(name).map_err(to_python)?,
        options: Options { recipe: formats.recipe, exceptions: formats.exceptions, ..Options::default() },
        adapters: adapters
            .iter()
            .map(|text| AdapterSource::from_argument(text).map_err(to_python))
            .collect::<PyResult<_>>()?,
        convert,
    };
    let settings = Settings::from_environment().map_err(to_python)?;
    // Whoever ends it at once ends it before anything is asked or written.
    follow.call1((0, 0, Vec::<String>::new()))?;
    let far = Arc::new(Far::default());
    let (sender, ended) = channel();
    let ended = Mutex::new(ended);
    let work = far.clone();
    let target = path.clone();
    let thread = std::thread::spawn(move || {
        let end = work.clone();
        let follower = Follower {
            progress: &*work,
            note: &|text| work.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned()),
            cancelled: Arc::new(move || end.is_over.load(Ordering::Relaxed)),
        };
        let _ = sender.send(palmtop_hub::pull(&settings, &wanted, &target, &follower).map(|_| ()));
    });
    let mut raised = None;
    let result = loop {
        let waited =
            py.detach(|| ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(TELL_EVERY));
        let notes = std::mem::take(&mut *far.notes.lock().unwrap_or_else(PoisonError::into_inner));
        let numbers = (far.done.load(Ordering::Relaxed), far.total.load(Ordering::Relaxed));
        if raised.is_none()
            && let Err(error) = py.check_signals().and_then(|()| follow.call1((numbers.0, numbers.1, notes)))
        {
            far.is_over.store(true, Ordering::Relaxed);
            raised = Some(error);
        }
        match waited {
            Ok(result) => break Some(result),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    let _ = py.detach(|| thread.join());
    match (raised, result) {
        // It was whole before anybody heard that it should end.
        (Some(error), _) => Err(error),
        (None, Some(result)) => result.map_err(to_python),
        (None, None) => Err(Error::new_err("a bug: the pull ended without a word")),
    }
}

/// The file in the folder of models that the program would pull this to.
#[pyfunction]
pub fn usual_path(
    name: &str,
    weights: Option<&str>,
    has_recipe: bool,
    adapters: Vec<String>,
) -> PyResult<OsString> {
    let wrong = |error: palmtop_hub::LibraryError| Error::new_err(error.to_string());
    let library = Library::from_environment().map_err(wrong)?;
    library.create().map_err(wrong)?;
    let repository = RepositoryName::from_argument(name).map_err(to_python)?;
    let path = library.path_of(&model_name(&repository, weights, has_recipe, &adapters));
    path.map(PathBuf::into_os_string).map_err(wrong)
}
