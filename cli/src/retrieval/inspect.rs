//! What `palmtop inspect` and `palmtop verify` say of an index.

use std::fmt::Write;

use anyhow::anyhow;
use palmtop_convert::Progress;
use palmtop_present::plain::{human_bytes, printable};
use palmtop_retrieval::format::VERSION;
use palmtop_retrieval::{Index, Page};
use serde::Serialize;

use super::embed::counted;
use super::model::described;
use crate::Outcome;
use crate::args::{InspectArgs, VerifyArgs};
use crate::convert::shell_word;
use crate::errors::WithHint;
use crate::output::{Console, Stdout, shown};
use crate::progress::Bar;

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct IndexJson<'a> {
    file: &'a str,
    bytes: u64,
    unused_bytes: u64,
    version: u32,
    dims: usize,
    vectors: &'static str,
    model: ModelJson<'a>,
    rows: u64,
    pages: Vec<PageJson<'a>>,
}

#[derive(Serialize)]
struct ModelJson<'a> {
    name: &'a str,
    fingerprint: String,
}

#[derive(Serialize)]
struct PageJson<'a> {
    source: &'a str,
    vectors: usize,
    width: u32,
    height: u32,
    content: String,
}

impl<'a> From<&'a Page> for PageJson<'a> {
    fn from(page: &'a Page) -> Self {
        Self {
            source: &page.name,
            vectors: page.rows,
            width: page.size.0,
            height: page.size.1,
            content: page.content.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Prints what an index is, and with `--all` its pages.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<Outcome> {
    let index = Index::open(&args.model)?;
    let kind = index.kind();
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&IndexJson {
            file: &args.model.to_string_lossy(),
            bytes: index.bytes(),
            unused_bytes: index.unused_bytes(),
            version: VERSION,
            dims: kind.dims,
            vectors: kind.vectors.name(),
            model: ModelJson {
                name: &kind.model.name,
                fingerprint: format!("{:016x}", kind.model.fingerprint),
            },
            rows: index.rows(),
            pages: index.pages().iter().map(PageJson::from).collect(),
        })?;
        return Ok(Outcome::Done);
    }
    let mut text = format!(
        "{}: {}, an index of {}, format version {VERSION}\n",
        shown(&args.model),
        human_bytes(index.bytes()),
        counted(index.pages().len(), "page")
    );
    writeln!(text, "  {:<9}{} of {} numbers, in {}", "vectors", index.rows(), kind.dims, kind.vectors)?;
    writeln!(text, "  {:<9}{}", "model", printable(&described(&kind.model)))?;
    writeln!(text, "  {:<9}{}", "unused", human_bytes(index.unused_bytes()))?;
    if args.all {
        text += "\npages\n";
        for page in index.pages() {
            let size = format!("{} x {}", page.size.0, page.size.1);
            writeln!(text, "  {:>6} vectors  {size:>13}  {}", page.rows, printable(&page.name))?;
        }
    }
    out.print(text)?;
    Ok(Outcome::Done)
}

/// Reads all of an index and compares its checksums.
pub fn verify(args: &VerifyArgs, console: Console) -> anyhow::Result<Outcome> {
    let index = Index::open(&args.model)?;
    let bar = Bar::new(console, "verifying", None);
    bar.start(index.bytes());
    let damaged = index.verify(|bytes| bar.advance(bytes));
    bar.finish();
    if !damaged.is_empty() {
        let mut text = format!(
            "{} is damaged in {} of {} pages",
            args.model.display(),
            damaged.len(),
            index.pages().len()
        );
        for &page in damaged.iter().take(DAMAGED_SHOWN_MAX) {
            write!(text, "\n  {}", printable(&index.page(page).name))?;
        }
        if damaged.len() > DAMAGED_SHOWN_MAX {
            write!(text, "\n  and {} more", damaged.len() - DAMAGED_SHOWN_MAX)?;
        }
        return Err(anyhow!(text)).hint(format!(
            "palmtop embed --compact -o {} removes them; then embed these pages again",
            shell_word(&args.model.display().to_string())
        ));
    }
    let (pages, bytes) = (counted(index.pages().len(), "page"), human_bytes(index.bytes()));
    Stdout::new().print(format_args!("{}: {bytes} in {pages}, all as written\n", shown(&args.model)))?;
    Ok(Outcome::Done)
}

const DAMAGED_SHOWN_MAX: usize = 10;
