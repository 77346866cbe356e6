//! The bytes of an index file; `docs/index-format.md` describes them for other programs.
//!
//! ```text
//! 0       header        256 bytes: what the vectors are. Never written again
//! 4096    commit slot 0  64 bytes   a commit writes the slot that the last one has not written,
//! 8192    commit slot 1  64 bytes   so one of them is whole whenever the writer dies
//! 12288   records        each a multiple of 64 bytes, one behind the other; the committed ones never change
//! ```
//!
//! Nothing behind the committed length counts: it is what a writer had not finished, and the next one removes it.

use palmtop::format::{Checksum, checksum};

use crate::error::{Defect, IndexError};
use crate::vectors::VectorFormat;

/// How every index begins: `PIDX`, and a tail that shows transfers that rewrote line ends, as in PNG.
pub const MAGIC: [u8; 8] = *b"PIDX\r\n\x1a\n";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 256;
/// Where the commit slots are. They share no block of a disk with each other, nor with anything else.
pub const SLOTS: [u64; 2] = [4096, 8192];
/// Bytes of a commit slot.
pub const SLOT_BYTES: usize = 64;
/// Where records begin.
pub const RECORDS_START: u64 = 12288;
/// Records and their vectors begin at multiples of this: a cache line.
pub const ALIGN: u64 = 64;
/// Bytes of a record before its name.
pub const RECORD_HEAD_BYTES: usize = 64;
/// Bytes of a page's name at most.
pub const NAME_BYTES_MAX: usize = 4096;
/// Rows of a page at most.
pub const ROWS_MAX: usize = 1 << 17;
/// Numbers of a row at most.
pub const DIMS_MAX: usize = 4096;
/// Bytes of a model's name that are kept at most.
const MODEL_NAME_BYTES_MAX: usize = 192;
const MODEL_NAME_AT: usize = 40;

/// Whose vectors an index has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelId {
    /// Equal for models that give the same vectors: see [`fingerprint`](crate::fingerprint()).
    pub fingerprint: u64,
    /// What the model calls itself; for people only. Up to 192 bytes are kept.
    pub name: String,
}

/// What all vectors of an index have in common; chosen when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Numbers of a vector, 1 to [`DIMS_MAX`].
    pub dims: usize,
    /// How they are kept.
    pub vectors: VectorFormat,
    /// Whose they are.
    pub model: ModelId,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

const fn damaged(offset: u64, what: &'static str) -> Defect {
    Defect::Damaged { offset, what }
}

impl Kind {
    /// The header of an index of this kind.
    ///
    /// # Errors
    /// [`IndexError::Dims`] if its vectors are empty or too wide.
    pub(crate) fn encode(&self) -> Result<[u8; HEADER_BYTES], IndexError> {
        if !(1..=DIMS_MAX).contains(&self.dims) {
            return Err(IndexError::Dims { dims: self.dims });
        }
        let mut end = self.model.name.len().min(MODEL_NAME_BYTES_MAX);
        while !self.model.name.is_char_boundary(end) {
            end -= 1;
        }
        let name = &self.model.name.as_bytes()[..end];
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 12, &(self.dims as u32).to_le_bytes());
        put(&mut bytes, 16, &self.vectors.code().to_le_bytes());
        put(&mut bytes, 20, &(name.len() as u32).to_le_bytes());
        put(&mut bytes, 24, &self.model.fingerprint.to_le_bytes());
        put(&mut bytes, MODEL_NAME_AT, name);
        let sum = checksum(&bytes[..HEADER_BYTES - 8]);
        put(&mut bytes, HEADER_BYTES - 8, &sum.to_le_bytes());
        Ok(bytes)
    }

    /// Reads the header of a file.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, Defect> {
        if !file.starts_with(&MAGIC) {
            return Err(Defect::Magic);
        }
        let Some(bytes) = file.get(..HEADER_BYTES) else {
            return Err(Defect::Cut { committed: RECORDS_START, found: file.len() as u64 });
        };
        // Of the version first: what follows may be another one's.
        let version = u32_at(bytes, 8);
        let sum = checksum(&bytes[..HEADER_BYTES - 8]);
        if sum != u64_at(bytes, HEADER_BYTES - 8) {
            return Err(if version > VERSION {
                Defect::Version { found: version }
            } else {
                damaged(0, "the header's checksum is another")
            });
        }
        if version != VERSION {
            return Err(Defect::Version { found: version });
        }
        let (dims, name_bytes) = (u32_at(bytes, 12) as usize, u32_at(bytes, 20) as usize);
        if !(1..=DIMS_MAX).contains(&dims) {
            return Err(damaged(12, "no such vectors are kept"));
        }
        let vectors = VectorFormat::from_code(u32_at(bytes, 16));
        let vectors = vectors.ok_or(damaged(16, "the format of vectors is unknown"))?;
        if name_bytes > MODEL_NAME_BYTES_MAX {
            return Err(damaged(20, "the model's name is too long"));
        }
        let name = std::str::from_utf8(&bytes[MODEL_NAME_AT..MODEL_NAME_AT + name_bytes]);
        let name = name.map_err(|_| damaged(MODEL_NAME_AT as u64, "the model's name is not UTF-8"))?;
        let rest = [&bytes[32..MODEL_NAME_AT], &bytes[MODEL_NAME_AT + name_bytes..HEADER_BYTES - 8]];
        if rest.iter().any(|part| part.iter().any(|&byte| byte != 0)) {
            return Err(damaged(32, "bytes are not zero that must be"));
        }
        Ok(Self { dims, vectors, model: ModelId { fingerprint: u64_at(bytes, 24), name: name.to_owned() } })
    }
}

/// What a commit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// From 1 on; slot `sequence mod 2` has it.
    pub sequence: u64,
    /// Bytes of the file that count.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
}

impl Commit {
    /// Of an index without pages.
    pub const FIRST: Self = Self { sequence: 1, bytes: RECORDS_START, records: 0 };

    /// Where it is written.
    pub fn place(&self) -> u64 {
        SLOTS[(self.sequence % 2) as usize]
    }

    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        put(&mut bytes, 0, &self.sequence.to_le_bytes());
        put(&mut bytes, 8, &self.bytes.to_le_bytes());
        put(&mut bytes, 16, &self.records.to_le_bytes());
        let sum = checksum(&bytes[..SLOT_BYTES - 8]);
        put(&mut bytes, SLOT_BYTES - 8, &sum.to_le_bytes());
        bytes
    }

    /// Whether a slot is whole.
    pub fn is_whole(slot: &[u8; SLOT_BYTES]) -> bool {
        checksum(&slot[..SLOT_BYTES - 8]) == u64_at(slot, SLOT_BYTES - 8)
    }

    fn parse(bytes: &[u8; SLOT_BYTES], slot: usize) -> Option<Self> {
        let commit = Self { sequence: u64_at(bytes, 0), bytes: u64_at(bytes, 8), records: u64_at(bytes, 16) };
        let is_sound = Self::is_whole(bytes)
            && commit.sequence % 2 == slot as u64
            // So that counting on never overflows.
            && commit.sequence <= u64::MAX / 2
            && commit.bytes >= RECORDS_START
            && commit.bytes.is_multiple_of(ALIGN)
            && commit.records <= (commit.bytes - RECORDS_START) / ALIGN;
        is_sound.then_some(commit)
    }
}

/// The slots of a file, copied, as must be done while somebody may write them; none where the file is too short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots(pub [Option<[u8; SLOT_BYTES]>; 2]);

impl Slots {
    pub fn of(file: &[u8]) -> Self {
        Self(SLOTS.map(|at| file.get(at as usize..)?.first_chunk().copied()))
    }

    /// The last commit: the slot that is whole and has the larger number. And whether the other slot is damaged, or was
    /// not written to its end: then a later commit may have been there, whose records are on the disk.
    pub fn last(&self) -> Result<(Commit, bool), Defect> {
        let commits = [0, 1].map(|slot| Commit::parse(self.0[slot].as_ref()?, slot));
        let last = commits.into_iter().flatten().max_by_key(|commit| commit.sequence);
        let last = last.ok_or(damaged(SLOTS[0], "neither commit is whole"))?;
        // A slot of zeros was never written.
        let was_written = |slot: &[u8; SLOT_BYTES]| slot.iter().any(|&byte| byte != 0);
        let is_torn = [0, 1]
            .into_iter()
            .any(|slot| commits[slot].is_none() && self.0[slot].is_some_and(|s| was_written(&s)));
        Ok((last, is_torn))
    }
}

/// What a record says about its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// Here is a page; an older one of its name counts no more.
    Page {
        name: &'a str,
        size: (u32, u32),
        content: [u8; 16],
        rows: usize,
        /// Of the vectors.
        checksum: u64,
    },
    /// The page of this name counts no more.
    Gone { name: &'a str },
}

/// `PAGE` and `GONE`, as they stand in the file.
const PAGE: u32 = u32::from_le_bytes(*b"PAGE");
const GONE: u32 = u32::from_le_bytes(*b"GONE");

impl<'a> Record<'a> {
    /// The name that it is about.
    pub fn name(&self) -> &'a str {
        match *self {
            Self::Page { name, .. } | Self::Gone { name } => name,
        }
    }

    /// Bytes from its beginning to its vectors.
    pub fn vectors_at(&self) -> u64 {
        vectors_at(self.name().len())
    }

    /// Head and name, with zeros up to the vectors. `bytes` are those of the whole record.
    pub fn encode(&self, bytes: u64) -> Vec<u8> {
        let name = self.name().as_bytes();
        let mut head = vec![0; vectors_at(name.len()) as usize];
        put(&mut head, 4, &(name.len() as u32).to_le_bytes());
        put(&mut head, 8, &bytes.to_le_bytes());
        match *self {
            Self::Page { size, content, rows, checksum, .. } => {
                put(&mut head, 0, &PAGE.to_le_bytes());
                put(&mut head, 16, &size.0.to_le_bytes());
                put(&mut head, 20, &size.1.to_le_bytes());
                put(&mut head, 24, &(rows as u32).to_le_bytes());
                put(&mut head, 32, &content);
                put(&mut head, 48, &checksum.to_le_bytes());
            }
            Self::Gone { .. } => put(&mut head, 0, &GONE.to_le_bytes()),
        }
        put(&mut head, RECORD_HEAD_BYTES, name);
        let sum = head_checksum(&head, name);
        put(&mut head, 56, &sum.to_le_bytes());
        head
    }

    /// Reads the record that begins at `offset`, in `bytes` of a file that end where records end. Gives its length too.
    pub fn parse(bytes: &'a [u8], offset: u64, kind: &Kind) -> Result<(Self, u64), Defect> {
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
        let rest = rest.ok_or(damaged(offset, "a record begins behind the end"))?;
        let Some(head) = rest.first_chunk::<RECORD_HEAD_BYTES>() else {
            return Err(damaged(offset, "a record ends behind the end"));
        };
        let name_bytes = u32_at(head, 4) as usize;
        if !(1..=NAME_BYTES_MAX).contains(&name_bytes) {
            return Err(damaged(offset, "no record begins here"));
        }
        let name = rest[RECORD_HEAD_BYTES..].get(..name_bytes);
        let name = name.ok_or(damaged(offset, "a record ends behind the end"))?;
        if head_checksum(head, name) != u64_at(head, 56) {
            return Err(damaged(offset, "a record's checksum is another"));
        }
        let name = std::str::from_utf8(name).map_err(|_| damaged(offset, "a page's name is not UTF-8"))?;
        let stated = u64_at(head, 8);
        let (record, vectors) = match u32_at(head, 0) {
            PAGE => {
                let rows = u32_at(head, 24) as usize;
                if !(1..=ROWS_MAX).contains(&rows) {
                    return Err(damaged(offset, "a page has no such number of rows"));
                }
                let size = (u32_at(head, 16), u32_at(head, 20));
                let content = *head[32..].first_chunk().expect("a head has 64 bytes");
                let vectors = kind.vectors.layout(rows, kind.dims).bytes() as u64;
                (Self::Page { name, size, content, rows, checksum: u64_at(head, 48) }, vectors)
            }
            GONE => (Self::Gone { name }, 0),
            _ => return Err(damaged(offset, "a record is of an unknown kind")),
        };
        if stated != vectors_at(name_bytes) + vectors.next_multiple_of(ALIGN) {
            return Err(damaged(offset, "a record's length does not fit what it has"));
        }
        if stated > rest.len() as u64 {
            return Err(damaged(offset, "a record ends behind the end"));
        }
        Ok((record, stated))
    }
}

/// From a record's beginning to its vectors.
const fn vectors_at(name_bytes: usize) -> u64 {
    ((RECORD_HEAD_BYTES + name_bytes) as u64).next_multiple_of(ALIGN)
}

/// Of the head before the checksum itself, and of the name.
fn head_checksum(head: &[u8], name: &[u8]) -> u64 {
    let mut sum = Checksum::default();
    sum.update(&head[..56]);
    sum.update(name);
    sum.finish()
}

/// Makes checksums right wherever a file says what they cover, so that fuzzing gets past them. Not for anything else.
#[doc(hidden)]
pub fn make_checksums_right(file: &mut [u8]) {
    if file.len() < RECORDS_START as usize {
        return;
    }
    put(file, 0, &MAGIC);
    put(file, 8, &VERSION.to_le_bytes());
    let sum = checksum(&file[..HEADER_BYTES - 8]);
    put(file, HEADER_BYTES - 8, &sum.to_le_bytes());
    for at in SLOTS.map(|at| at as usize) {
        let sum = checksum(&file[at..at + SLOT_BYTES - 8]);
        put(file, at + SLOT_BYTES - 8, &sum.to_le_bytes());
    }
    let mut at = RECORDS_START as usize;
    while let Some(head) = file.get(at..at.saturating_add(RECORD_HEAD_BYTES)) {
        let (name_bytes, bytes) = (u32_at(head, 4) as usize, u64_at(head, 8));
        let Some(name) =
            file.get(at + RECORD_HEAD_BYTES..(at + RECORD_HEAD_BYTES).saturating_add(name_bytes))
        else {
            return;
        };
        let sum = head_checksum(head, name);
        put(file, at + 56, &sum.to_le_bytes());
        let next = usize::try_from(bytes).ok().and_then(|bytes| at.checked_add(bytes));
        match next {
            Some(next) if next > at => at = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        let model = ModelId { fingerprint: 0x0123_4567_89ab_cdef, name: "vidore/colpali".into() };
        Kind { dims: 128, vectors: VectorFormat::Int8, model }
    }

    #[test]
    fn a_header_comes_back_and_no_changed_byte_does() {
        let bytes = kind().encode().unwrap();
        assert_eq!(Kind::parse(&bytes), Ok(kind()));
        for at in 0..HEADER_BYTES {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert!(Kind::parse(&wrong).is_err(), "byte {at}");
            assert!(Kind::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(Kind::parse(&later), Err(Defect::Version { found: 2 }));
        assert!(Kind { dims: 0, ..kind() }.encode().is_err());
        assert!(Kind { dims: DIMS_MAX + 1, ..kind() }.encode().is_err());
    }

    #[test]
    fn a_long_name_of_a_model_is_cut_between_characters() {
        let mut long = kind();
        long.model.name = format!("{}{}", "x".repeat(191), "é".repeat(9));
        let kept = Kind::parse(&long.encode().unwrap()).unwrap().model.name;
        assert_eq!(kept, "x".repeat(191));
    }

    #[test]
    fn a_record_comes_back_and_no_changed_byte_of_its_head_does() {
        let vectors = kind().vectors.layout(3, 128).bytes() as u64;
        let page = Record::Page { name: "a/b.png", size: (7, 9), content: [5; 16], rows: 3, checksum: 77 };
        let bytes = page.vectors_at() + vectors.next_multiple_of(ALIGN);
        let mut file = page.encode(bytes);
        file.resize(bytes as usize, 0);
        assert_eq!(Record::parse(&file, 0, &kind()), Ok((page, bytes)));
        for at in 0..RECORD_HEAD_BYTES + page.name().len() {
            let mut wrong = file.clone();
            wrong[at] ^= 0x10;
            assert!(Record::parse(&wrong, 0, &kind()).is_err(), "byte {at}");
        }
        for cut in 0..file.len() {
            assert!(Record::parse(&file[..cut], 0, &kind()).is_err(), "cut at {cut}");
        }
        let gone = Record::Gone { name: "a" };
        assert_eq!(Record::parse(&gone.encode(128), 0, &kind()), Ok((gone, 128)));
    }

    #[test]
    fn the_whole_slot_with_the_larger_number_is_the_last_commit() {
        let mut file = vec![0; RECORDS_START as usize + 256];
        assert!(Slots::of(&file).last().is_err());
        let commits = [Commit::FIRST, Commit { sequence: 2, bytes: RECORDS_START + 128, records: 1 }];
        for commit in commits {
            put(&mut file, commit.place() as usize, &commit.encode());
            assert_eq!(Slots::of(&file).last(), Ok((commit, false)));
        }
        for at in 0..SLOT_BYTES {
            let mut torn = file.clone();
            torn[SLOTS[0] as usize + at] ^= 4;
            assert_eq!(Slots::of(&torn).last(), Ok((commits[0], true)), "byte {at}");
        }
        file.truncate(SLOTS[1] as usize + 9);
        assert_eq!(Slots::of(&file).last(), Ok((commits[1], false)));
        assert!(Slots::of(&file[..SLOTS[0] as usize]).last().is_err());
    }
}
