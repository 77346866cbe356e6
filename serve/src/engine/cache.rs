//! Which pictures' features are kept, and where: the one used longest ago gives way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use palmtop::model::Model;

use super::EngineOptions;
use super::picture::Key;

/// Where features of pictures lie. Requests look into it; the engine's thread alone changes it.
pub(super) struct Cache(Mutex<Directory>);

struct Directory {
    slots: Vec<Option<Entry>>,
    by_key: HashMap<Key, usize>,
    clock: u64,
}

struct Entry {
    key: Key,
    size: (u32, u32),
    used: u64,
}

impl Cache {
    /// Bytes of one picture's features.
    pub fn slot_bytes(model: &Model) -> usize {
        let config = model.config();
        config.image_rows() * config.text.hidden * size_of::<f32>()
    }

    /// How many pictures' features fit; those of one request do in any case.
    pub fn slots(model: &Model, options: &EngineOptions) -> usize {
        (options.features_bytes / Self::slot_bytes(model)).max(options.limits.pictures)
    }

    pub fn new(slots: usize) -> Self {
        Self(Mutex::new(Directory {
            slots: (0..slots).map(|_| None).collect(),
            by_key: HashMap::with_capacity(slots),
            clock: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Width and height of a picture whose features are kept.
    pub fn size(&self, key: Key) -> Option<(u32, u32)> {
        let directory = self.lock();
        let slot = *directory.by_key.get(&key)?;
        directory.slots[slot].as_ref().map(|entry| entry.size)
    }

    /// Where a picture's features are; they are used now.
    pub fn find(&self, key: Key) -> Option<usize> {
        let mut directory = self.lock();
        let slot = *directory.by_key.get(&key)?;
        directory.touch(slot);
        Some(slot)
    }

    /// A place for another picture's features, none of `taken`: what was there is forgotten.
    pub fn make_room(&self, taken: &[usize]) -> usize {
        let mut directory = self.lock();
        let free = (0..directory.slots.len()).filter(|slot| !taken.contains(slot));
        let slot = free.min_by_key(|&slot| directory.slots[slot].as_ref().map_or(0, |entry| entry.used));
        let slot = slot.expect("there is a place for each picture of a request");
        if let Some(entry) = directory.slots[slot].take() {
            directory.by_key.remove(&entry.key);
        }
        slot
    }

    /// A picture's features are in this place from now on.
    pub fn keep(&self, slot: usize, key: Key, size: (u32, u32)) {
        let mut directory = self.lock();
        directory.slots[slot] = Some(Entry { key, size, used: 0 });
        directory.by_key.insert(key, slot);
        directory.touch(slot);
    }
}

impl Directory {
    fn touch(&mut self, slot: usize) {
        self.clock += 1;
        if let Some(entry) = &mut self.slots[slot] {
            entry.used = self.clock;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_used_longest_ago_gives_way() {
        let cache = Cache::new(2);
        for n in 0..2 {
            let slot = cache.make_room(&[]);
            cache.keep(slot, [n, 0], (n as u32, 1));
        }
        assert!(cache.find([0, 0]).is_some());
        let slot = cache.make_room(&[]);
        assert_eq!(cache.size([1, 0]), None);
        cache.keep(slot, [2, 0], (2, 1));
        assert_eq!(cache.size([0, 0]), Some((0, 1)));
        assert_eq!(cache.size([2, 0]), Some((2, 1)));
    }

    #[test]
    fn a_requests_own_pictures_stay() {
        let cache = Cache::new(2);
        let first = cache.make_room(&[]);
        cache.keep(first, [1, 1], (1, 1));
        let second = cache.make_room(&[first]);
        assert_ne!(first, second);
        cache.keep(second, [2, 2], (1, 1));
        cache.find([2, 2]);
        cache.find([1, 1]);
        // The other one was used longer ago, but is of this request.
        assert_eq!(cache.make_room(&[second]), first);
    }
}
