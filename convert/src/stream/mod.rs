//! Converts a checkpoint that is elsewhere while it comes, and keeps nothing of it: the disk holds the target alone.
//!
//! The headers of all weight files are read first. They say where every tensor lies, and sizes and recipe say which
//! bytes of the target are made of it; so each weight file is read front to back, its rows are quantized as they
//! come, sixteen at a time, and written to their place ([`route`] has the plan, [`making`] follows it, [`shard`]
//! reads). What is made of several tensors is made when the last of them is there.
//!
//! Memory: for each connection, pieces of 2 MiB (or of 64 rows, if those are more): one in work and three read ahead,
//! and one of the target; and small tensors that wait for others, at most 256 MiB and mostly far less.
//!
//! The target grows in a [`Part`]. A [`journal`] beside it tells how far each weight file has come, with the state of
//! its SHA-256, so that another process goes on from there and still knows the hash of the whole file. The target has
//! its name once all hashes are those that the origin names. Its bytes are those that [`convert`](crate::convert)
//! writes.

mod journal;
mod making;
mod route;
mod shard;
pub mod sum;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use palmtop::format::Head;
use palmtop::model::tensors::{EMBEDDING, HEAD};
use xxhash_rust::xxh3::Xxh3;

use crate::adapter::{self, Merger};
use crate::checkpoint::shards::{HEADER_BYTES_MAX, LENGTH_BYTES};
use crate::checkpoint::{self, Checkpoint, Header};
use crate::part::Part;
use crate::write::{self, Contents, Output};
use crate::{ConvertError, OfAdapters, Options, Prepared, Progress, Report, TensorReport, pool};
use journal::{Finished, Journal, Mark};
use making::{Arrived, Given, Making};
use route::Routes;
use sum::{Sum, hex};

/// A first request for a header asks for so many bytes: most are shorter.
const HEADER_BYTES: u64 = 128 << 10;

/// Gives the bytes of files.
pub trait ByteSource: Send + Sync {
    /// Reads a file from byte `start` up to byte `end`. The reader gives all of these bytes in order, whatever happens
    /// to connections meanwhile, or an error, which ends the conversion.
    ///
    /// # Errors
    /// If the file cannot be had.
    fn open(
        &self,
        file: &str,
        start: u64,
        end: u64,
    ) -> Result<Box<dyn Read + Send>, Box<dyn Error + Send + Sync>>;
}

/// A weight file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// A checkpoint whose weights are elsewhere.
pub struct Remote<'a> {
    /// A folder with its small files: `config.json`, the tokenizer's files, an index of the weights.
    pub folder: &'a Path,
    /// What it is called, in the target too, unless the options have another name.
    pub name: &'a str,
    /// Its revision.
    pub revision: Option<&'a str>,
    /// Its weight files.
    pub files: &'a [RemoteFile],
    /// Where they come from.
    pub source: Arc<dyn ByteSource>,
}

/// Converts a checkpoint as it comes, as [`convert`](crate::convert) does with one that is there; `part` is the target's,
/// and has what an earlier run left. At most so many weight files are read at once.
///
/// # Errors
/// As [`convert`](crate::convert), and [`NeedsWhole`](ConvertError::NeedsWhole) for what must see weights more than once,
/// such as calibration; [`Fetch`](ConvertError::Fetch); [`WrongHash`](ConvertError::WrongHash), behind which the weight
/// file will come anew.
pub fn convert_as_it_comes(
    remote: &Remote<'_>,
    part: Part,
    options: &Options,
    connections: usize,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    let start = Instant::now();
    if options.calibration.is_some() {
        return Err(ConvertError::NeedsWhole { what: "calibration".to_owned() });
    }
    progress.message("reading the checkpoint's tables");
    let names = names(remote)?;
    match adapter::only_an_adapter(remote.folder, &names) {
        Some(ConvertError::OnlyAdapter { base, .. }) => {
            return Err(ConvertError::OnlyAdapter { path: remote.name.into(), base });
        }
        Some(other) => return Err(other),
        None => {}
    }
    let checkpoint = Checkpoint::elsewhere(remote.folder, &names, remote.name, &mut |name| {
        let file = remote.files.iter().find(|file| file.name == name);
        let missing = || ConvertError::Fetch(format!("{name}: the origin does not name its SHA-256").into());
        let file = file.ok_or_else(missing)?;
        Ok(Header { json: header(remote, file)?, bytes: file.bytes })
    })?;
    let by_name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        remote.files.iter().find(|file| file.name == *name).expect("its header was read").clone()
    };
    let files: Vec<RemoteFile> = checkpoint.files().map(by_name).collect();
    let left = Journal::read(&part.journal()).filter(|journal| journal.is_of(&files));
    let own_head = |checkpoint: &Checkpoint| match &left {
        Some(left) => Ok(left.own_head),
        None => has_own_head(remote, checkpoint, &files),
    };
    let revision = remote.revision.map(str::to_owned);
    let prepared = crate::prepare(remote.folder, checkpoint, (remote.name, revision), options, own_head)?;
    let Prepared { weights, mut config, adapters, tokenizer, options, notes } = prepared;
    let own_head = config.text.own_head;
    let fingerprint = adapters.fingerprint();
    let mut plan = adapters.plan(&config)?;
    config.text.own_head |= plan.unties();
    let of_adapters = OfAdapters::of(&mut plan, &config);
    let pool = pool(options.threads)?;
    let nothing = Arrived::nothing(&weights);
    let merger = Merger::new(&nothing, plan)?;

    let mut contents = crate::contents(&nothing, &config, tokenizer, &options)?;
    contents.name_recipe();
    let mut head = write::head(&contents);
    let length = head.place();
    let specs = config.tensors();
    let lengths: Vec<u64> = files.iter().map(|file| file.bytes).collect();
    let routes =
        Routes::new(&specs, &contents.formats, &head, contents.before.len(), &merger, &weights, &lengths)?;
    let plan = plan_of(&head, fingerprint);
    let model = part.model();
    let is_whole = || model.metadata().is_ok_and(|metadata| metadata.len() == length);
    let left = left.filter(|left| left.plan == plan && is_whole());
    let is_new = left.is_none();
    let left = left.unwrap_or_else(|| Journal::new(plan, own_head, &files));

    part.check_room(length)?;
    let mut open = OpenOptions::new();
    let file = open.read(true).write(true).create(true).truncate(false).open(&model);
    let file = file.map_err(ConvertError::io(&model))?;
    if is_new {
        // Nothing of another target stays between its tensors.
        file.set_len(0).map_err(ConvertError::io(&model))?;
    }
    file.set_len(length).map_err(ConvertError::io(&model))?;
    let stop = AtomicBool::new(false);
    let quiet = Quiet { progress, stop: &stop };
    let out = || Output { file: &file, target: part.target(), progress: &quiet };
    let journal = part.journal();
    let given = Given {
        checkpoint: &weights,
        merger: &merger,
        formats: &contents.formats,
        routes: &routes,
        files: &files,
    };
    let making = Making::new(given, out(), (&model, &journal), pool, &left)?;
    let had: u64 = left.shards.iter().map(|mark| mark.position).sum();
    progress.start(lengths.iter().sum::<u64>() - had);
    if had > 0 {
        progress.resumed(had);
    }
    fetch_all(&making, remote, connections, progress, &stop)?;
    progress.message("syncing");
    let Some(finished) = making.into_finished() else {
        // The journal said that more was done than there is.
        part.remove()?;
        return Err(ConvertError::Fetch("what an earlier run left was damaged, and is removed".into()));
    };
    let tensors = write_rest(&out(), &contents, &mut head, &finished)?;
    let target = part.target().to_owned();
    part.finish()?;
    let written = (contents.formats.clone(), tensors, length);
    let mut report = of_adapters.put_into(crate::report(&target, &config, &options, written, start));
    report.notes.splice(0..0, notes);
    Ok(report)
}

/// Reads all weight files, several at once, and leaves a journal if that fails.
fn fetch_all(
    making: &Making<'_>,
    remote: &Remote<'_>,
    connections: usize,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<(), ConvertError> {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= making.given.files.len() {
                return Ok(());
            }
            let result = shard::run(shard, making, &remote.source, progress);
            if result.is_err() {
                stop.store(true, Ordering::Relaxed);
                return result;
            }
        }
    };
    let results: Vec<Result<(), ConvertError>> = std::thread::scope(|scope| {
        let count = connections.clamp(1, making.given.files.len());
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    // Others were only told to stop.
    let mut errors = results.into_iter().filter_map(Result::err).collect::<Vec<_>>();
    errors.sort_by_key(|error| matches!(error, ConvertError::Cancelled));
    match errors.into_iter().next() {
        None => Ok(()),
        // It has left a journal of its own.
        Some(error @ ConvertError::WrongHash { .. }) => Err(error),
        Some(error) => {
            making.write_journal(None)?;
            Err(error)
        }
    }
}

/// Writes what does not come with the weights, and the head: the target is whole then.
fn write_rest(
    out: &Output<'_>,
    contents: &Contents<'_>,
    head: &mut Head,
    finished: &[Finished],
) -> Result<Vec<TensorReport>, ConvertError> {
    let mut entries = head.tensors.iter_mut();
    let mut entry = || entries.next().expect("the table was made from the same lists");
    let mut reports = Vec::new();
    for tensor in &contents.before {
        reports.push(out.verbatim(tensor, entry())?);
    }
    for (spec, finished) in contents.config.tensors().iter().zip(finished) {
        let entry = entry();
        entry.checksum = finished.checksum;
        reports.push(TensorReport::new(entry, spec.matrix(), finished.relative_error));
    }
    for tensor in &contents.behind {
        reports.push(out.verbatim(tensor, entry())?);
    }
    out.write(&head.encode(), 0)?;
    Ok(reports)
}

/// The names of all files of a checkpoint.
fn names(remote: &Remote<'_>) -> Result<Vec<String>, ConvertError> {
    let mut names = checkpoint::file_names(remote.folder)?;
    names.extend(remote.files.iter().map(|file| file.name.clone()));
    names.sort();
    names.dedup();
    Ok(names)
}

/// The JSON of a weight file's header.
fn header(remote: &Remote<'_>, file: &RemoteFile) -> Result<Vec<u8>, ConvertError> {
    let wrong = |what: &str| ConvertError::Safetensors {
        path: Path::new(remote.name).join(&file.name),
        what: what.to_owned(),
    };
    let read = |start: u64, end: u64| {
        let mut bytes = vec![0; (end - start) as usize];
        let mut reader = remote.source.open(&file.name, start, end).map_err(ConvertError::Fetch)?;
        reader.read_exact(&mut bytes).map_err(shard::fetch)?;
        Ok::<_, ConvertError>(bytes)
    };
    let mut bytes = read(0, file.bytes.min(HEADER_BYTES))?;
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    let length = length.ok_or_else(|| wrong("is too short to be a safetensors file"))?;
    let end = length.saturating_add(LENGTH_BYTES as u64);
    if length > HEADER_BYTES_MAX || end > file.bytes {
        return Err(wrong("is not a safetensors file: its header would be longer than 100 MB or the file"));
    }
    if end > bytes.len() as u64 {
        bytes.append(&mut read(bytes.len() as u64, end)?);
    }
    Ok(bytes[LENGTH_BYTES..end as usize].to_vec())
}

/// As [`Checkpoint::has_own_head`]; reads both matrices side by side, up to the first difference. Few checkpoints have
/// two.
fn has_own_head(
    remote: &Remote<'_>,
    checkpoint: &Checkpoint,
    files: &[RemoteFile],
) -> Result<bool, ConvertError> {
    if !checkpoint.has_two_heads()? {
        return Ok(false);
    }
    let open = |name: &'static str| {
        let tensor = checkpoint.tensor(name).expect("there are two");
        let (start, end) = (tensor.start as u64, tensor.end as u64);
        let reader =
            remote.source.open(&files[tensor.shard].name, start, end).map_err(ConvertError::Fetch)?;
        Ok::<_, ConvertError>((name, reader, (end - start) as usize / tensor.len(), tensor.len()))
    };
    const BLOCK: usize = 1 << 16;
    let (mut head, mut embedding) = (open(HEAD)?, open(EMBEDDING)?);
    let values = head.3;
    let read = |(name, reader, size, _): &mut (&str, Box<dyn Read + Send>, usize, usize), at, n| {
        let (mut bytes, mut out) = (vec![0; n * *size], vec![0.0; n]);
        reader.read_exact(&mut bytes).map_err(shard::fetch)?;
        checkpoint.read_arrived(name, (&bytes, at), at, &mut out)?;
        Ok::<_, ConvertError>(out)
    };
    for at in (0..values).step_by(BLOCK) {
        let n = BLOCK.min(values - at);
        if read(&mut head, at, n)? != read(&mut embedding, at, n)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Of all that says which bytes the target has: two plans are equal if one can go on with what another has left.
fn plan_of(head: &Head, adapters: u64) -> String {
    let mut hash = Xxh3::new();
    hash.update(concat!("1 ", env!("CARGO_PKG_VERSION")).as_bytes());
    hash.update(&adapters.to_le_bytes());
    for tensor in &head.tensors {
        let place = (tensor.offset, tensor.length, tensor.storage.name(), &tensor.shape);
        hash.update(format!("{} {place:?}\n", tensor.name).as_bytes());
    }
    hex(&hash.digest128().to_be_bytes())
}

impl Journal {
    /// Nothing is done yet.
    fn new(plan: String, own_head: bool, files: &[RemoteFile]) -> Self {
        let mark = |file: &RemoteFile| Mark {
            name: file.name.clone(),
            sha256: hex(&file.sha256),
            position: 0,
            state: Sum::default().state(),
        };
        Self { plan, own_head, shards: files.iter().map(mark).collect(), finished: Default::default() }
    }

    /// True if it speaks of these weight files.
    fn is_of(&self, files: &[RemoteFile]) -> bool {
        let same = |(mark, file): (&Mark, &RemoteFile)| {
            mark.name == file.name
                && mark.sha256 == hex(&file.sha256)
                && mark.position <= file.bytes
                && Sum::from_state(&mark.state).is_some()
        };
        self.shards.len() == files.len() && self.shards.iter().zip(files).all(same)
    }
}

/// Progress of what is received, not of what is written; and the end of all threads once one has failed.
struct Quiet<'a> {
    progress: &'a dyn Progress,
    stop: &'a AtomicBool,
}

impl Progress for Quiet<'_> {
    fn message(&self, text: &str) {
        self.progress.message(text);
    }
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.progress.cancelled()
    }
}
