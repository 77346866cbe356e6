//! Which model makes the vectors, and whether it is the one that made an index.

use std::sync::Arc;

use anyhow::anyhow;
use palmtop::Model;
use palmtop::format::PalmFile;
use palmtop::session::CancelToken;
use palmtop::{GenerateOptions, Limits, UsageError};
use palmtop_hub::{Library, makes_vectors};
use palmtop_retrieval::{Kind, ModelId, fingerprint};

use crate::args::ModelArgs;
use crate::errors::WithHint;
use crate::models::{self, Chosen};
use crate::output::Console;

/// The model that arguments name, or else one of `palmtop models`: that which made the index, or the only one that
/// makes vectors. It does not become the one that answers by default, since it does not answer.
pub fn open(args: &ModelArgs, index: Option<&Kind>, console: Console) -> anyhow::Result<Arc<Model>> {
    let named = args.model.as_deref().map(|named| models::choose(Some(named), console)).transpose()?;
    let named = match named {
        Some(Chosen::Demo(_)) if args.is_named_by_flag() => {
            return Err(palmtop::Error::from(UsageError::NoRetrieval).into());
        }
        Some(Chosen::File(path)) => Some(path),
        Some(Chosen::Demo(_)) | None => None,
    };
    // One that the environment names may be there for other commands.
    let path = match named.filter(|path| args.is_named_by_flag() || makes_vectors(path)) {
        Some(path) => path,
        None => {
            let (name, path) = pulled(index)?;
            console.note(format_args!("note: {name} makes the vectors; -m names another"));
            path
        }
    };
    let model = models::load(&path, args.load)?;
    if model.retrieval().is_none() {
        return Err(palmtop::Error::from(UsageError::NoRetrieval).into());
    }
    Ok(model)
}

/// A model of `palmtop models`.
fn pulled(index: Option<&Kind>) -> anyhow::Result<(String, std::path::PathBuf)> {
    let installed = Library::from_environment().map(|library| library.installed()).unwrap_or_default();
    let mut fitting = Vec::new();
    for one in installed {
        let fits = match index {
            Some(kind) => {
                PalmFile::open(&one.path).is_ok_and(|file| fingerprint(&file) == kind.model.fingerprint)
            }
            None => makes_vectors(&one.path),
        };
        if fits {
            fitting.push((one.name, one.path));
        }
    }
    match (fitting.len(), index) {
        // Of two that are the same to the byte, either will do.
        (1, _) | (2.., Some(_)) => Ok(fitting.remove(0)),
        (_, Some(kind)) => Err(anyhow!("the model that made the index is none of `palmtop models`"))
            .hint(format!("name it with -m: {} made the index", described(&kind.model))),
        (0, None) => Err(anyhow!("none of `palmtop models` makes vectors of pages"))
            .hint("name one with -m; docs/retrieval.md says how to make one of a checkpoint of ColPali"),
        (_, None) => {
            Err(anyhow!("several of `palmtop models` make vectors of pages")).hint("name one with -m")
        }
    }
}

/// Which model this is to an index.
pub fn id(model: &Model) -> ModelId {
    let name = model.file().metadata().text("general.name").unwrap_or_default();
    ModelId { fingerprint: fingerprint(model.file()), name }
}

/// A model for people.
pub fn described(id: &ModelId) -> String {
    let name = if id.name.is_empty() { "a model without a name" } else { &id.name };
    format!("{name} ({:016x})", id.fingerprint)
}

/// Refuses a model whose vectors are not those of an index.
pub fn check(model: &Model, index: &Kind, may_differ: bool) -> anyhow::Result<()> {
    let id = id(model);
    let dims = model.retrieval().map_or(0, |retrieval| retrieval.dim);
    if dims != index.dims {
        return Err(anyhow!(
            "the model makes vectors of {dims} numbers, and the index has some of {}",
            index.dims
        ))
        .hint(format!("use the model that made the index: {}", described(&index.model)));
    }
    if may_differ || id.fingerprint == index.model.fingerprint {
        return Ok(());
    }
    let hint = if id.name == index.model.name && !id.name.is_empty() {
        "it is the same checkpoint, converted with other weights or in another wording: use the file that made the index, \
         or make an index with this one; palmtop find --any-model asks it nevertheless"
    } else {
        "use the model that made the index, or make another index; the vectors of two models have nothing to do with each \
         other"
    };
    let (made, asked) = (described(&index.model), described(&id));
    Err(anyhow!("the index was made with {made}, and this is {asked}")).hint(hint)
}

/// A longer question is refused as it is asked, for what it is.
const QUESTION_TOKENS_MAX: usize = 4096;

/// A session that makes vectors of pages, and of questions of so many bytes.
pub fn limits(args: &ModelArgs, model: &Model, question_bytes: usize) -> Limits {
    let mut limits = args.machine.limits();
    let retrieval = model.retrieval().expect("opening has asked");
    // No token is shorter than a byte.
    let question =
        1 + retrieval.query_prefix.len() + question_bytes + retrieval.query_pads + retrieval.query_end.len();
    let page = retrieval.document_bos + retrieval.document_prompt.len();
    limits.prompt_tokens = question.max(page).min(QUESTION_TOKENS_MAX);
    limits.new_tokens = 0;
    limits
}

/// Nothing but the cancellation.
pub fn options(cancel: &CancelToken) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.cancel = cancel.clone();
    options
}
