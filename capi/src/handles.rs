//! Handles: numbers that name an object in a table.
//!
//! ```text
//!  63     56 55              24 23             0
//! ┌─────────┬──────────────────┬────────────────┐
//! │  kind   │    generation    │     index      │
//! └─────────┴──────────────────┴────────────────┘
//! ```
//!
//! The generation of a place counts how often it has been freed. If the kind, index or generation of a handle does not
//! match, the handle names no object and the call fails. Zero is never issued.
//!
//! Kinds: 1 models, 2 sessions, 3 features, 4 results, 5 grammars, 6 watches, 7 prefixes. Each is declared beside its
//! objects.

use std::sync::{Arc, PoisonError, RwLock};

use crate::failure::{Failure, PALMTOP_INVALID_HANDLE, PALMTOP_OUT_OF_MEMORY, Result};

const INDEX_BITS: u32 = 24;
const KIND_SHIFT: u32 = 56;

/// A kind of handle, declared beside what it names: the number as C has it, and the table of its objects.
macro_rules! handle {
    ($name:ident, $table:ident: $entry:ty, $kind:literal, $what:literal) => {
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            pub id: u64,
        }

        pub(crate) static $table: $crate::handles::Table<$entry> = $crate::handles::Table::new($kind, $what);
    };
}
pub(crate) use handle;

/// The objects of one kind.
pub(crate) struct Table<T> {
    kind: u64,
    what: &'static str,
    places: RwLock<Places<T>>,
}

struct Places<T> {
    all: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    object: Option<Arc<T>>,
}

impl<T> Table<T> {
    pub const fn new(kind: u64, what: &'static str) -> Self {
        Self { kind, what, places: RwLock::new(Places { all: Vec::new(), free: Vec::new() }) }
    }

    /// Takes an object and gives its handle.
    pub fn insert(&self, object: Arc<T>) -> Result<u64> {
        // No code of others runs while the table is locked, so a panic leaves nothing half done.
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let index = match places.free.pop() {
            Some(index) => index,
            None if places.all.len() < 1 << INDEX_BITS => {
                places.all.push(Place { generation: 0, object: None });
                (places.all.len() - 1) as u32
            }
            None => {
                let what = format!("all 2^{INDEX_BITS} handles of this kind are in use: free some");
                return Err(Failure::new(PALMTOP_OUT_OF_MEMORY, what));
            }
        };
        let place = &mut places.all[index as usize];
        place.object = Some(object);
        Ok(self.kind << KIND_SHIFT | u64::from(place.generation) << INDEX_BITS | u64::from(index))
    }

    /// The object of a handle, kept alive. Allocates nothing unless it fails.
    pub fn get(&self, id: u64) -> Result<Arc<T>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let place = self.index(id).and_then(|index| places.all.get(index));
        let place = place.filter(|place| place.generation == generation(id));
        place.and_then(|place| place.object.clone()).ok_or_else(|| self.unknown(id))
    }

    /// Forgets the object of a handle and gives it back; it lives on where it is in use.
    pub fn remove(&self, id: u64) -> Result<Arc<T>> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let index = self.index(id).ok_or_else(|| self.unknown(id))?;
        let place = places.all.get_mut(index).filter(|place| place.generation == generation(id));
        let place = place.ok_or_else(|| self.unknown(id))?;
        let object = place.object.take().ok_or_else(|| self.unknown(id))?;
        // A place whose generations are used up is given up.
        if let Some(next) = place.generation.checked_add(1) {
            place.generation = next;
            places.free.push(index as u32);
        }
        Ok(object)
    }

    fn index(&self, id: u64) -> Option<usize> {
        (id >> KIND_SHIFT == self.kind).then_some((id & ((1 << INDEX_BITS) - 1)) as usize)
    }

    fn unknown(&self, id: u64) -> Failure {
        let what = self.what;
        let message = if id == 0 {
            format!("the {what} handle is zero: did the call that creates it succeed?")
        } else {
            format!("{id:#x} is not a {what} handle, or its {what} has been freed")
        };
        Failure::new(PALMTOP_INVALID_HANDLE, message)
    }
}

fn generation(id: u64) -> u32 {
    (id >> INDEX_BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_handles_of_the_same_kind_name_anything() {
        let table = Table::new(9, "thing");
        let a = table.insert(Arc::new('a')).unwrap();
        let b = table.insert(Arc::new('b')).unwrap();
        assert_eq!((*table.get(a).unwrap(), *table.get(b).unwrap()), ('a', 'b'));
        assert_eq!(*table.remove(a).unwrap(), 'a');
        assert!(table.get(a).is_err() && table.remove(a).is_err());
        let c = table.insert(Arc::new('c')).unwrap();
        assert_ne!(a, c);
        assert_eq!(a as u32 & 0xff_ffff, c as u32 & 0xff_ffff, "the place is used again");
        assert!(table.get(a).is_err());
        assert_eq!(*table.get(c).unwrap(), 'c');
        let other = Table::<char>::new(8, "other thing");
        for id in [0, 1, a, c, u64::MAX, c + 1, c ^ 1 << 63, c + (1 << INDEX_BITS), 9 << 56 | 0xff_ffff] {
            assert!(other.get(id).is_err() && other.remove(id).is_err(), "{id:#x}");
            assert!(id == c || table.get(id).is_err(), "{id:#x}");
        }
    }

    #[test]
    fn a_place_that_is_used_up_is_not_used_again() {
        let table = Table::new(9, "thing");
        let first = table.insert(Arc::new(())).unwrap();
        table.remove(first).unwrap();
        table.places.write().unwrap().all[0].generation = u32::MAX;
        let last = table.insert(Arc::new(())).unwrap();
        table.remove(last).unwrap();
        assert_eq!(table.insert(Arc::new(())).unwrap() & 0xff_ffff, 1);
        assert!(table.get(last).is_err());
    }

    #[test]
    fn threads_share_a_table() {
        let table = Table::new(9, "thing");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    let rounds = if cfg!(miri) { 20 } else { 5000 };
                    let mut freed = Vec::new();
                    for round in 0..rounds {
                        let id = table.insert(Arc::new((thread, round))).unwrap();
                        assert_eq!(*table.get(id).unwrap(), (thread, round));
                        assert_eq!(*table.remove(id).unwrap(), (thread, round));
                        freed.push(id);
                        assert!(table.get(freed[round / 2]).is_err());
                    }
                });
            }
        });
    }
}
