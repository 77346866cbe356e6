//! `palmtop embed`: makes vectors of pages, and keeps them in an index.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use palmtop::image::{DecodeOptions, Decoded, decode_with};
use palmtop::session::{CancelToken, Session};
use palmtop::{Embedding, GenerateOptions, ImageFeatures, Model};
use palmtop_convert::Progress;
use palmtop_convert::temporary;
use palmtop_present::json::Failure as FailureJson;
use palmtop_present::plain::{human_bytes, printable};
use palmtop_present::sources::{self, Expanded, Source};
use palmtop_retrieval::writer::Compacted;
use palmtop_retrieval::{Defect, IndexError, Kind, NewPage, VectorFormat, Writer, content_hash};
use serde::Serialize;

use super::args::EmbedArgs;
use super::model;
use crate::answer::{self, Failure};
use crate::convert::shell_word;
use crate::errors::{self, UsageError, WithHint};
use crate::output::{Console, Stdout, say, shown};
use crate::progress::Bar;
use crate::{Outcome, files, interrupt};

/// An index is compacted by itself if no page uses more of it than pages use, and that is at least so much.
const UNUSED_BYTES_MIN: u64 = 1 << 20;

/// Adds and removes pages. A page that cannot be used is reported, and the rest go on; each counts as it is done.
pub fn run(args: &EmbedArgs, console: Console) -> anyhow::Result<Outcome> {
    let Expanded { entries, passed_over } = if args.sources.is_empty() {
        Expanded::default()
    } else {
        sources::expand(&args.sources, args.recursive)?
    };
    let folder = files::folder_for(&args.output)?;
    let cancel = interrupt::listen()?;
    args.model.machine.kernels()?;
    temporary::remove_left(folder);
    let (existing, is_salvaged) = open(args, console)?;
    let mut out = Stdout::new();
    if args.sources.is_empty() {
        let Some(mut writer) = existing else {
            return Err(anyhow!("there is no index {}", args.output.display()))
                .hint("name pictures to make one of: palmtop embed pages/ -o INDEX");
        };
        let all_found = remove(args, &mut writer, console)?;
        compact(args.compact && !is_salvaged, &mut writer, console)?;
        if !args.json {
            out.print(summary(&args.output, &writer))?;
        }
        return Ok(if all_found { Outcome::Done } else { Outcome::SomeFailed });
    }
    let model = model::open(&args.model, existing.as_ref().map(Writer::kind), console)?;
    let mut embedder = Embedder::new(args, &model, &cancel)?;
    let mut writer = match existing {
        Some(writer) => {
            model::check(&model, writer.kind(), false)?;
            writer
        }
        None => Writer::create(&args.output, &kind(args, &model))?,
    };
    let all_found = remove(args, &mut writer, console)?;
    // Before the pages, so that those that are lost by it are made anew.
    compact(args.compact && !is_salvaged, &mut writer, console)?;
    let bar = Bar::items(console, "embedding", None);
    let count = entries.len();
    bar.start(count as u64);
    let mut counts = Counts::default();
    for entry in entries {
        if cancel.is_cancelled() {
            break;
        }
        let (name, done) = match entry {
            Ok(source) => (source.to_string(), embedder.page(&source, &mut writer)),
            Err(error) => (error.name(), Err(Failure::Picture(error.into()))),
        };
        match done {
            Ok(done) => {
                counts.add(&done);
                bar.hide_while(|| report(&mut out, args, &name, &done, console))?;
            }
            Err(Failure::Picture(error)) => {
                counts.failed += 1;
                bar.hide_while(|| {
                    say(errors::explain(&error));
                    let error = &errors::in_one_line(&error);
                    let line = FailureJson { source: &name, error };
                    if args.json { out.print_json(&line) } else { Ok(()) }
                })?;
            }
            Err(Failure::Everything(error)) => {
                bar.finish();
                // Ctrl-C in the middle of a page.
                if cancel.is_cancelled() {
                    break;
                }
                return Err(error);
            }
        }
        bar.advance(1);
    }
    bar.finish();
    if cancel.is_cancelled() {
        console.note(format_args!(
            "interrupted; {} of {} pages are done, and the same command goes on",
            counts.embedded + counts.unchanged,
            count
        ));
        return Ok(Outcome::Interrupted);
    }
    compact(args.compact && writer.used_and_unused_bytes().1 > 0, &mut writer, console)?;
    if !args.json {
        out.print(format_args!("{counts}\n{}", summary(&args.output, &writer)))?;
    }
    answer::note_passed_over(&passed_over, console);
    Ok(if counts.failed == 0 && all_found { Outcome::Done } else { Outcome::SomeFailed })
}

/// The index, if it is there; with `--compact` what is whole of a damaged one, and true.
fn open(args: &EmbedArgs, console: Console) -> anyhow::Result<(Option<Writer>, bool)> {
    if args.output.symlink_metadata().is_err() {
        return Ok((None, false));
    }
    let (writer, is_salvaged) = match Writer::open(&args.output) {
        Ok(writer) => (writer, false),
        Err(IndexError::File { source: Defect::Damaged { .. } | Defect::Cut { .. }, .. }) if args.compact => {
            let (writer, done) = Writer::salvage(&args.output).hint(
                "nothing of it can be kept, since its beginning is lost: remove the file, and embed the pages again",
            )?;
            console.note(format_args!("{} was damaged; what is whole of it was kept", shown(&args.output)));
            tell_compacted(&done, console);
            (writer, true)
        }
        Err(error) => return Err(error.into()),
    };
    let kept = writer.kind().vectors;
    match args.vectors.map(VectorFormat::from) {
        Some(wanted) if wanted != kept => Err(UsageError(format!(
            "--vectors {wanted}: index {} has vectors in {kept}; leave the option out, or make another index",
            args.output.display()
        ))
        .into()),
        _ => Ok((Some(writer), is_salvaged)),
    }
}

fn kind(args: &EmbedArgs, model: &Model) -> Kind {
    let dims = model.retrieval().map_or(0, |retrieval| retrieval.dim);
    let vectors = args.vectors.map_or(VectorFormat::F16, VectorFormat::from);
    Kind { dims, vectors, model: model::id(model) }
}

/// Removes the pages of `--remove`; gives whether all were there.
fn remove(args: &EmbedArgs, writer: &mut Writer, console: Console) -> anyhow::Result<bool> {
    let mut all_found = true;
    for name in &args.remove {
        if writer.remove(name)? {
            console.note(format_args!("removed {}", printable(name)));
        } else {
            all_found = false;
            say(format_args!(
                "error: the index has no page {}\nhint: palmtop inspect --all {} lists them\n",
                printable(name),
                shell_word(&args.output.display().to_string())
            ));
        }
    }
    writer.commit()?;
    Ok(all_found)
}

/// Compacts an index if that was asked for, or if more of it is unused than used.
fn compact(asked: bool, writer: &mut Writer, console: Console) -> anyhow::Result<()> {
    let (used, unused) = writer.used_and_unused_bytes();
    if asked {
        tell_compacted(&writer.compact().context("cannot compact the index")?, console);
    } else if unused > used && unused >= UNUSED_BYTES_MIN {
        match writer.compact() {
            Ok(done) => tell_compacted(&done, console),
            // The index is as it was; there may be no room for two.
            Err(error) => console.note(format_args!(
                "{} of the index are not used any more; it could not be compacted: {}",
                human_bytes(unused),
                errors::in_one_line(&error.into())
            )),
        }
    }
    Ok(())
}

fn tell_compacted(done: &Compacted, console: Console) {
    let (before, after) = (human_bytes(done.bytes_before), human_bytes(done.bytes_after));
    console.note(format_args!("compacted the index from {before} to {after}"));
    if done.unreadable > 0 {
        let (places, are) = if done.unreadable == 1 { ("place", "is") } else { ("places", "are") };
        say(format_args!("{} {places} of it could not be read, and {are} lost\n", done.unreadable));
    }
    for name in &done.lost {
        say(format_args!("lost, since its vectors were damaged: {}\n", printable(name)));
    }
}

fn summary(path: &Path, writer: &Writer) -> String {
    let pages = writer.pages().len();
    let bytes = writer.used_and_unused_bytes().0;
    format!("{}: {}, {}\n", shown(path), counted(pages, "page"), human_bytes(bytes))
}

/// A number and what it counts.
pub fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What has become of pages.
#[derive(Default)]
struct Counts {
    embedded: usize,
    unchanged: usize,
    failed: usize,
}

impl Counts {
    fn add(&mut self, done: &Done) {
        match done {
            Done::Embedded { .. } => self.embedded += 1,
            Done::Unchanged { .. } => self.unchanged += 1,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} embedded, {} unchanged", self.embedded, self.unchanged)?;
        if self.failed > 0 { write!(f, ", {} could not be used", self.failed) } else { Ok(()) }
    }
}

/// What has become of a page.
enum Done {
    Embedded { rows: usize, size: (u32, u32), is_truncated: bool, times: [Duration; 3] },
    Unchanged { rows: usize },
}

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct PageJson<'a> {
    source: &'a str,
    status: &'static str,
    vectors: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsJson>,
}

#[derive(Serialize)]
struct ImageJson {
    width: u32,
    height: u32,
    truncated: bool,
}

#[derive(Serialize)]
struct TimingsJson {
    decode_image_ms: f64,
    encode_ms: f64,
    vectors_ms: f64,
}

/// Milliseconds, to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn report(
    out: &mut Stdout,
    args: &EmbedArgs,
    source: &str,
    done: &Done,
    console: Console,
) -> anyhow::Result<()> {
    let line = match *done {
        Done::Unchanged { rows } => {
            PageJson { source, status: "unchanged", vectors: rows, image: None, timings: None }
        }
        Done::Embedded { rows, size: (width, height), is_truncated, times } => {
            if is_truncated {
                answer::note_truncated(&printable(source), console);
            }
            let [decode_image_ms, encode_ms, vectors_ms] = times.map(ms);
            if console.verbose {
                console.note(format_args!(
                    "{}: {}, decoded in {decode_image_ms:.1} ms, encoded in {encode_ms:.1} ms, vectors in {vectors_ms:.1} ms",
                    printable(source),
                    counted(rows, "vector")
                ));
            }
            PageJson {
                source,
                status: "embedded",
                vectors: rows,
                image: Some(ImageJson { width, height, truncated: is_truncated }),
                timings: Some(TimingsJson { decode_image_ms, encode_ms, vectors_ms }),
            }
        }
    };
    if args.json { out.print_json(&line) } else { Ok(()) }
}

/// All that making vectors of pages needs, made once.
struct Embedder {
    session: Session,
    features: ImageFeatures,
    vectors: Embedding,
    decode: DecodeOptions,
    options: GenerateOptions,
}

impl Embedder {
    fn new(args: &EmbedArgs, model: &std::sync::Arc<Model>, cancel: &CancelToken) -> anyhow::Result<Self> {
        let session = Session::new(model, &model::limits(&args.model, model, 0));
        let session = session.context("cannot start a session")?;
        let mut decode = DecodeOptions::default();
        decode.allow_truncated = args.allow_truncated;
        let (features, vectors) = (session.new_features()?, session.new_embedding()?);
        Ok(Self { session, features, vectors, decode, options: model::options(cancel) })
    }

    /// Makes the vectors of a page, unless the index has them, and brings them to the disk.
    fn page(&mut self, source: &Source, writer: &mut Writer) -> Result<Done, Failure> {
        let start = Instant::now();
        let of_page = |error: anyhow::Error| {
            Failure::Picture(error.context(format!("cannot use picture {}", printable(&source.to_string()))))
        };
        let everything = |error: palmtop::Error| Failure::Everything(error.into());
        let name = match source.path().map(|path| path.to_str()) {
            None => "-",
            Some(Some(name)) => name,
            Some(None) => return Err(of_page(anyhow!("its name is not UTF-8; an index can keep no other"))),
        };
        let bytes = interrupt::while_reading([source.path()], || source.read(&self.decode.limits));
        let bytes = bytes.map_err(|error| of_page(error.into()))?;
        let content = content_hash(&bytes);
        if let Some(page) = writer.find(name).filter(|page| page.content == content) {
            return Ok(Done::Unchanged { rows: page.rows });
        }
        let decoded = decode_with(&bytes, &self.decode).map_err(|error| of_page(error.into()))?;
        let Decoded { image, is_truncated, .. } = decoded;
        drop(bytes);
        let decoding = start.elapsed();
        self.session.model().check_unchanged().map_err(everything)?;
        self.session.encode(image.view(), &mut self.features, &self.options).map_err(
            |error| match error {
                palmtop::Error::Image(_) => of_page(error.into()),
                _ => everything(error),
            },
        )?;
        self.session.embed_picture(&self.features, &self.options, &mut self.vectors).map_err(everything)?;
        let size = (image.width(), image.height());
        let page = NewPage { name, size, content, rows: self.vectors.values() };
        writer.put(&page).and_then(|()| writer.commit()).map_err(|error| match error {
            IndexError::Page(_) => of_page(error.into()),
            _ => Failure::Everything(error.into()),
        })?;
        let timings = self.session.timings();
        let times = [decoding, timings.encode, timings.rows];
        Ok(Done::Embedded { rows: self.vectors.rows(), size, is_truncated, times })
    }
}
