//! Which pages an index has: what its records add up to.

use std::collections::{BTreeMap, HashMap};

use palmtop::format::checksum;

use crate::error::Defect;
use crate::format::{Commit, Kind, RECORDS_START, Record, Slots};
use crate::page::Page;

/// The pages that count, by where their records begin: in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    pages: BTreeMap<u64, Page>,
    by_name: HashMap<Box<str>, u64>,
    /// Bytes of the records of these pages.
    live_bytes: u64,
}

impl Directory {
    /// Of all committed records of a file. If a slot is torn, the records behind the commit that are whole count as
    /// well: those of a commit whose slot was damaged are. Gives the bytes and the number of all records that count.
    pub fn of_file(file: &[u8], kind: &Kind, slots: &Slots) -> Result<(Self, Commit), Defect> {
        let (mut commit, is_torn) = slots.last()?;
        let mut directory = Self::read(file, kind, &commit)?;
        while is_torn && let Ok((record, bytes)) = Record::parse(file, commit.bytes, kind) {
            if let Record::Page { checksum: stated, rows, .. } = record {
                let at = (commit.bytes + record.vectors_at()) as usize;
                if checksum(&file[at..at + kind.vectors.layout(rows, kind.dims).bytes()]) != stated {
                    break;
                }
            }
            directory.apply(&record, commit.bytes, bytes, kind);
            (commit.bytes, commit.records) = (commit.bytes + bytes, commit.records + 1);
        }
        Ok((directory, commit))
    }

    /// Of the records that a commit counts.
    pub fn read(file: &[u8], kind: &Kind, commit: &Commit) -> Result<Self, Defect> {
        let end = usize::try_from(commit.bytes).ok().and_then(|end| file.get(..end));
        let file = end.ok_or(Defect::Cut { committed: commit.bytes, found: file.len() as u64 })?;
        let mut directory = Self::default();
        let (mut offset, mut records) = (RECORDS_START, 0);
        while offset < commit.bytes {
            let (record, bytes) = Record::parse(file, offset, kind)?;
            directory.apply(&record, offset, bytes, kind);
            offset += bytes;
            records += 1;
        }
        if records != commit.records {
            return Err(Defect::Damaged { offset, what: "there are not as many records as were committed" });
        }
        Ok(directory)
    }

    /// What a record that begins at `offset` changes.
    pub fn apply(&mut self, record: &Record<'_>, offset: u64, bytes: u64, kind: &Kind) {
        self.remove(record.name());
        let Record::Page { name, size, content, rows, checksum } = *record else { return };
        let begin = offset + record.vectors_at();
        let vectors = begin..begin + kind.vectors.layout(rows, kind.dims).bytes() as u64;
        let (name, record): (Box<str>, _) = (name.into(), offset..offset + bytes);
        self.by_name.insert(name.clone(), offset);
        self.pages.insert(offset, Page { name, size, content, rows, vectors, checksum, record });
        self.live_bytes += bytes;
    }

    fn remove(&mut self, name: &str) {
        let Some(offset) = self.by_name.remove(name) else { return };
        if let Some(page) = self.pages.remove(&offset) {
            self.live_bytes -= page.record.end - page.record.start;
        }
    }

    /// The page of this name.
    pub fn find(&self, name: &str) -> Option<&Page> {
        self.pages.get(self.by_name.get(name)?)
    }

    /// All pages, in their order.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = &Page> {
        self.pages.values()
    }

    /// The same, for good.
    pub fn into_pages(self) -> Vec<Page> {
        self.pages.into_values().collect()
    }

    /// Bytes of the records of these pages.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }
}
