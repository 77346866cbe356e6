//! The target while it is made: what comes goes into it, piece by piece, from several threads.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use palmtop::format::Checksum;
use rayon::ThreadPool;

use super::RemoteFile;
use super::journal::{Finished, Journal, Mark};
use super::route::{Piece, Routes, Rows, User};
use super::sum::{Sum, hex};
use crate::adapter::Merger;
use crate::checkpoint::Checkpoint;
use crate::source::WeightSource;
use crate::write::{Output, SquareSums};
use crate::{ConvertError, Formats};

/// The first journal comes at once, and each waits twice as long as the one before, up to this: a sync takes time.
const JOURNAL_EVERY: Duration = Duration::from_secs(10);
/// Tensors that wait for their other parts have no more bytes than this, all together.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// A place in a weight file, and the hash of all before it.
#[derive(Clone, Default)]
pub struct Point {
    pub position: u64,
    pub sum: Sum,
}

/// What the target is made of, and how.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub checkpoint: &'a Checkpoint,
    pub merger: &'a Merger,
    pub formats: &'a Formats,
    pub routes: &'a Routes<'a>,
    pub files: &'a [RemoteFile],
}

/// The target, and what is known of it.
pub struct Making<'a> {
    pub given: Given<'a>,
    pub out: Output<'a>,
    /// Where the target is written, and where what is done of it.
    pub model: &'a Path,
    pub journal: &'a Path,
    pub plan: String,
    pub own_head: bool,
    pub pool: ThreadPool,
    states: Vec<Mutex<State>>,
    /// Parts that came of tensors whose other parts have not, by target.
    waiting: Mutex<BTreeMap<usize, BTreeMap<String, Waiting>>>,
    finished: Mutex<BTreeMap<usize, Finished>>,
    /// How far each weight file has come.
    points: Vec<Mutex<Point>>,
    timer: Mutex<Timer>,
}

/// A matrix under way.
#[derive(Default)]
struct State {
    /// Stripes that are not written yet.
    left: usize,
    /// The hash of the stripes before this one, as long as they come in order.
    next: usize,
    sum: Checksum,
    out_of_order: bool,
    powers: Vec<(usize, SquareSums)>,
}

/// A tensor that came, and where going on must begin as long as it is only in memory.
struct Waiting {
    bytes: Vec<u8>,
    shard: usize,
    from: Point,
}

struct Timer {
    last: Instant,
    wait: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Weights of which only what has just come can be read.
pub struct Arrived<'a> {
    checkpoint: &'a Checkpoint,
    /// By classic names: bytes, and which value of the tensor is the first one.
    tensors: HashMap<&'a str, (&'a [u8], usize)>,
}

impl<'a> Arrived<'a> {
    /// Nothing has come yet.
    pub fn nothing(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, tensors: HashMap::new() }
    }
}

impl WeightSource for Arrived<'_> {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        match self.tensors.get(name) {
            Some(&arrived) => self.checkpoint.read_arrived(name, arrived, start, out),
            None => Err(ConvertError::NeedsWhole { what: format!("merging an adapter into '{name}'") }),
        }
    }
}

impl<'a> Making<'a> {
    /// Goes on behind what a journal says, which must be one of this plan.
    pub fn new(
        given: Given<'a>,
        out: Output<'a>,
        (model, journal): (&'a Path, &'a Path),
        pool: ThreadPool,
        left: &Journal,
    ) -> Result<Self, ConvertError> {
        let routes = given.routes;
        let point = |mark: &Mark| Point {
            position: mark.position,
            sum: Sum::from_state(&mark.state).unwrap_or_default(),
        };
        let of = |(i, target): (usize, &super::route::Target<'_>)| {
            Some((i, *left.finished.get(&target.spec.name)?))
        };
        let finished: BTreeMap<usize, Finished> = routes.targets.iter().enumerate().filter_map(of).collect();
        let mut states: Vec<State> = Vec::new();
        for target in &routes.targets {
            let left = target.matrix.as_ref().map_or(0, |m| m.layout.stripes());
            states.push(State { left, ..State::default() });
        }
        for (pieces, mark) in routes.pieces.iter().zip(&left.shards) {
            for rows in pieces.iter().filter(|p| p.end <= mark.position).filter_map(|p| p.rows.as_ref()) {
                for &user in &routes.incoming[rows.incoming].users {
                    if routes.targets[user.target].matrix.is_some() {
                        let state = &mut states[user.target];
                        state.left -= routes.stripes(user, rows).count();
                        state.out_of_order = true;
                    }
                }
            }
        }
        let out = Self {
            given,
            out,
            model,
            journal,
            plan: left.plan.clone(),
            own_head: left.own_head,
            pool,
            points: left.shards.iter().map(|mark| Mutex::new(point(mark))).collect(),
            states: states.into_iter().map(Mutex::new).collect(),
            waiting: Mutex::default(),
            finished: Mutex::new(finished),
            timer: Mutex::new(Timer { last: Instant::now(), wait: Duration::ZERO }),
        };
        // All stripes were written, and the process ended before it said so.
        for target in 0..routes.targets.len() {
            let is_whole = routes.targets[target].matrix.is_some() && lock(&out.states[target]).left == 0;
            if is_whole && !out.is_finished(target) {
                out.finish_matrix(target)?;
            }
        }
        Ok(out)
    }

    /// Where reading a weight file goes on.
    pub fn point(&self, shard: usize) -> Point {
        lock(&self.points[shard]).clone()
    }

    fn is_finished(&self, target: usize) -> bool {
        lock(&self.finished).contains_key(&target)
    }

    /// Takes a piece of a weight file: its bytes, and the places before and behind it.
    pub fn take(
        &self,
        shard: usize,
        piece: &Piece,
        bytes: &[u8],
        before: Point,
        behind: Point,
    ) -> Result<(), ConvertError> {
        if let Some(rows) = &piece.rows {
            for &user in &self.given.routes.incoming[rows.incoming].users {
                if self.is_finished(user.target) {
                    continue;
                }
                match self.given.routes.targets[user.target].matrix {
                    Some(_) => self.stripes(user, rows, bytes)?,
                    None => self.gather(user, rows, bytes, shard, &before)?,
                }
            }
        }
        *lock(&self.points[shard]) = behind;
        Ok(())
    }

    fn stripes(&self, user: User, rows: &Rows, bytes: &[u8]) -> Result<(), ConvertError> {
        let incoming = &self.given.routes.incoming[rows.incoming];
        let matrix = self.given.routes.targets[user.target].matrix.as_ref().expect("it is a matrix");
        let stripes: Vec<usize> = self.given.routes.stripes(user, rows).collect();
        let tensors = HashMap::from([(&*incoming.name, (bytes, rows.first * incoming.values))]);
        let arrived = Arrived { checkpoint: self.given.checkpoint, tensors };
        let mut packed = vec![0; stripes.len() * matrix.layout.stripe_bytes()];
        let powers = self.pool.install(|| {
            let source = self.given.merger.over(&arrived);
            self.out.stripes(matrix, &source, None, &|i| stripes[i], &mut packed)
        })?;
        let mut state = lock(&self.states[user.target]);
        let in_order = stripes.iter().enumerate().all(|(i, &stripe)| stripe == state.next + i);
        match in_order && !state.out_of_order {
            true => {
                state.sum.update(&packed);
                state.next += stripes.len();
            }
            false => state.out_of_order = true,
        }
        state.left -= stripes.len();
        state.powers.extend(stripes.into_iter().zip(powers));
        let is_whole = state.left == 0;
        drop(state);
        if is_whole { self.finish_matrix(user.target) } else { Ok(()) }
    }

    fn finish_matrix(&self, target: usize) -> Result<(), ConvertError> {
        let mut state = std::mem::take(&mut *lock(&self.states[target]));
        let entry = &self.given.routes.targets[target].entry;
        let layout = &self.given.routes.targets[target].matrix.as_ref().expect("it is a matrix").layout;
        let checksum = match state.out_of_order {
            false => state.sum.finish(),
            true => {
                checksum_of(self.model, entry.offset, entry.length).map_err(ConvertError::io(self.model))?
            }
        };
        // In the order of the file, so that it does not depend on how they came.
        state.powers.sort_by_key(|(stripe, _)| *stripe);
        let mut all = SquareSums::default();
        state.powers.iter().for_each(|(_, power)| all.add(power));
        let relative_error = (state.powers.len() == layout.stripes()).then(|| all.relative_error());
        lock(&self.finished).insert(target, Finished { checksum, relative_error });
        Ok(())
    }

    /// Keeps a tensor until all are there that make one of the target.
    fn gather(
        &self,
        user: User,
        rows: &Rows,
        bytes: &[u8],
        shard: usize,
        from: &Point,
    ) -> Result<(), ConvertError> {
        let target = &self.given.routes.targets[user.target];
        let name = self.given.routes.incoming[rows.incoming].name.clone();
        let mut all = lock(&self.waiting);
        let others: usize = all.values().flat_map(|parts| parts.values()).map(|part| part.bytes.len()).sum();
        if others + bytes.len() > WAITING_BYTES_MAX {
            let what = format!("putting '{}' together, whose parts lie far apart,", target.spec.name);
            return Err(ConvertError::NeedsWhole { what });
        }
        let parts = all.entry(user.target).or_default();
        parts.insert(name, Waiting { bytes: bytes.to_vec(), shard, from: from.clone() });
        let wanted = target.spec.source.parts.iter().map(|part| self.given.merger.origin(&part.name));
        if !wanted.into_iter().all(|name| parts.contains_key(name)) {
            return Ok(());
        }
        // They stay where the journal sees them until the tensor is written.
        let mut entry = target.entry.clone();
        let tensors = parts.iter().map(|(name, part)| (&**name, (&*part.bytes, 0))).collect();
        let arrived = Arrived { checkpoint: self.given.checkpoint, tensors };
        let report = self.pool.install(|| {
            let source = self.given.merger.over(&arrived);
            self.out.tensor(&source, self.given.formats, target.spec, None, &mut entry)
        })?;
        let finished = Finished { checksum: entry.checksum, relative_error: report.relative_error };
        lock(&self.finished).insert(user.target, finished);
        all.remove(&user.target);
        Ok(())
    }

    /// Writes a journal if it is time for one.
    pub fn note(&self) -> Result<(), ConvertError> {
        let Ok(mut timer) = self.timer.try_lock() else { return Ok(()) };
        if timer.last.elapsed() < timer.wait {
            return Ok(());
        }
        self.write_journal(None)?;
        let wait = (timer.wait * 2).clamp(Duration::from_secs(1), JOURNAL_EVERY);
        *timer = Timer { last: Instant::now(), wait };
        Ok(())
    }

    /// Writes down what is done, once it is on the disk. A weight file that is not what it should be is to come again.
    pub fn write_journal(&self, wrong: Option<usize>) -> Result<(), ConvertError> {
        // In this order: what has left one of them is in the next.
        let mut points: Vec<Point> = (0..self.points.len()).map(|shard| self.point(shard)).collect();
        for part in lock(&self.waiting).values().flat_map(|parts| parts.values()) {
            if part.from.position < points[part.shard].position {
                points[part.shard] = part.from.clone();
            }
        }
        let mut finished = lock(&self.finished).clone();
        if let Some(shard) = wrong {
            points[shard] = Point::default();
            for rows in self.given.routes.pieces[shard].iter().filter_map(|piece| piece.rows.as_ref()) {
                self.given.routes.incoming[rows.incoming].users.iter().for_each(|user| {
                    finished.remove(&user.target);
                });
            }
        }
        self.out.file.sync_data().map_err(ConvertError::io(self.model))?;
        let mark = |(file, point): (&RemoteFile, Point)| Mark {
            name: file.name.clone(),
            sha256: hex(&file.sha256),
            position: point.position,
            state: point.sum.state(),
        };
        let named = |(target, finished): (usize, Finished)| {
            (self.given.routes.targets[target].spec.name.clone(), finished)
        };
        let journal = Journal {
            plan: self.plan.clone(),
            own_head: self.own_head,
            shards: self.given.files.iter().zip(points).map(mark).collect(),
            finished: finished.into_iter().map(named).collect(),
        };
        journal.write(self.journal)
    }

    /// What is known of each of the target's tensors, in their order; none if there is one that is not whole.
    pub fn into_finished(self) -> Option<Vec<Finished>> {
        let finished = self.finished.into_inner().unwrap_or_else(|e| e.into_inner());
        (finished.len() == self.given.routes.targets.len()).then(|| finished.into_values().collect())
    }
}

/// The checksum of a range of a file.
fn checksum_of(path: &Path, offset: u64, length: u64) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let (mut sum, mut buffer, mut left) = (Checksum::default(), vec![0; 1 << 20], length);
    while left > 0 {
        let n = left.min(buffer.len() as u64) as usize;
        file.read_exact(&mut buffer[..n])?;
        sum.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(sum.finish())
}
