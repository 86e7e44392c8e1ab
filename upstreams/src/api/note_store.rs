//! The notes of every user, in memory, in bounded number and size.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use thiserror::Error;

/// How much the store may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoteLimits {
    /// Bytes of one note's text.
    note_bytes: usize,
    /// Notes of one user.
    notes_per_user: usize,
    /// Users with at least one note.
    users: usize,
    /// Bytes of all notes' texts together.
    total_bytes: usize,
}

/// The limits of the server.
const LIMITS: NoteLimits = NoteLimits {
    note_bytes: 4 * 1024,
    notes_per_user: 100,
    users: 10_000,
    total_bytes: 64 * 1024 * 1024,
};

/// One note, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Note {
    /// Unique in this process, never given twice.
    pub(super) id: u64,
    /// What the user wrote.
    pub(super) text: Arc<str>,
}

/// Why a note was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum NoteRefused {
    #[error("a note needs some text")]
    Empty,
    #[error("the text of a note may have at most {limit} bytes")]
    TooLong { limit: usize },
    #[error("a user may have at most {limit} notes; delete one first")]
    TooMany { limit: usize },
    #[error("this server holds as many notes as it can")]
    StoreFull,
}

/// What the notes amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct NoteCounts {
    /// Users with at least one note.
    users: usize,
    /// Notes of all users.
    notes: usize,
    /// Bytes of their texts.
    bytes: usize,
}

/// Every user's notes. No method looks beyond the user that it is given.
#[derive(Debug)]
pub(super) struct NoteStore {
    limits: NoteLimits,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// A user whose last note goes has no entry any more.
    by_user: HashMap<String, BTreeMap<u64, Arc<str>>>,
    last_id: u64,
    notes: usize,
    bytes: usize,
}

impl Default for NoteStore {
    fn default() -> Self {
        Self::with_limits(LIMITS)
    }
}

impl NoteStore {
    fn with_limits(limits: NoteLimits) -> Self {
        Self {
            limits,
            held: Mutex::default(),
        }
    }

    /// The user's notes, oldest first.
    pub(super) fn list(&self, user: &str) -> Vec<Note> {
        let held = self.lock();
        let notes = held.by_user.get(user).into_iter().flatten();
        notes
            .map(|(&id, text)| Note {
                id,
                text: Arc::clone(text),
            })
            .collect()
    }

    /// The user's note `id`; `None` also where it is another user's.
    pub(super) fn get(&self, user: &str, id: u64) -> Option<Note> {
        let held = self.lock();
        let text = Arc::clone(held.by_user.get(user)?.get(&id)?);
        Some(Note { id, text })
    }

    /// Adds a note of the user, within the limits.
    pub(super) fn add(&self, user: &str, text: &str) -> Result<Note, NoteRefused> {
        let limits = &self.limits;
        if text.trim().is_empty() {
            return Err(NoteRefused::Empty);
        }
        if text.len() > limits.note_bytes {
            let limit = limits.note_bytes;
            return Err(NoteRefused::TooLong { limit });
        }
        let mut held = self.lock();
        let own = held.by_user.get(user).map_or(0, BTreeMap::len);
        if own >= limits.notes_per_user {
            let limit = limits.notes_per_user;
            return Err(NoteRefused::TooMany { limit });
        }
        let no_room_for_a_user = own == 0 && held.by_user.len() >= limits.users;
        if no_room_for_a_user || held.bytes + text.len() > limits.total_bytes {
            return Err(NoteRefused::StoreFull);
        }
        Ok(held.add(user, text))
    }

    /// Removes the user's note `id`; false where the user has none of that id.
    pub(super) fn delete(&self, user: &str, id: u64) -> bool {
        self.lock().delete(user, id).is_some()
    }

    /// What the notes amount to.
    pub(super) fn counts(&self) -> NoteCounts {
        let held = self.lock();
        NoteCounts {
            users: held.by_user.len(),
            notes: held.notes,
            bytes: held.bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, user: &str, text: &str) -> Note {
        self.last_id += 1;
        self.notes += 1;
        self.bytes += text.len();
        let (id, text) = (self.last_id, Arc::<str>::from(text));
        let own = self.by_user.entry(user.to_owned()).or_default();
        own.insert(id, Arc::clone(&text));
        Note { id, text }
    }

    fn delete(&mut self, user: &str, id: u64) -> Option<()> {
        let own = self.by_user.get_mut(user)?;
        let text = own.remove(&id)?;
        if own.is_empty() {
            self.by_user.remove(user);
        }
        self.notes -= 1;
        self.bytes -= text.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NoteLimits = NoteLimits {
        note_bytes: 8,
        notes_per_user: 2,
        users: 2,
        total_bytes: 20,
    };

    #[test]
    fn a_user_sees_and_deletes_only_their_own_notes() {
        let store = NoteStore::default();
        let hers = store.add("alice", "hers").unwrap();
        let his = store.add("bob", "his").unwrap();
        assert_eq!(store.list("alice"), std::slice::from_ref(&hers));
        assert_eq!(store.list("bob"), [his]);
        assert_eq!(store.get("bob", hers.id), None);
        assert!(!store.delete("bob", hers.id));
        assert_eq!(store.get("alice", hers.id), Some(hers.clone()));
        assert!(store.delete("alice", hers.id));
        assert!(!store.delete("alice", hers.id));
    }

    #[test]
    fn a_note_has_some_text_and_not_too_much() {
        let store = NoteStore::with_limits(SMALL);
        assert_eq!(store.add("alice", " \n"), Err(NoteRefused::Empty));
        assert!(store.add("alice", "12345678").is_ok());
        let refused = NoteRefused::TooLong { limit: 8 };
        assert_eq!(store.add("alice", "123456789"), Err(refused));
    }

    #[test]
    fn a_user_has_so_many_notes_until_one_is_deleted() {
        let store = NoteStore::with_limits(SMALL);
        let first = store.add("alice", "1").unwrap();
        store.add("alice", "2").unwrap();
        let refused = NoteRefused::TooMany { limit: 2 };
        assert_eq!(store.add("alice", "3"), Err(refused));
        assert!(store.delete("alice", first.id));
        assert!(store.add("alice", "3").unwrap().id > first.id);
    }

    #[test]
    fn a_user_without_notes_takes_no_place() {
        let store = NoteStore::with_limits(SMALL);
        let hers = store.add("alice", "1").unwrap();
        store.add("bob", "2").unwrap();
        assert_eq!(store.add("carol", "3"), Err(NoteRefused::StoreFull));
        assert!(store.delete("alice", hers.id));
        store.add("carol", "3").unwrap();
    }

    #[test]
    fn all_notes_together_are_bounded_and_counted() {
        let store = NoteStore::with_limits(SMALL);
        store.add("alice", "12345678").unwrap();
        let last = store.add("alice", "12345678").unwrap();
        assert_eq!(store.add("bob", "12345"), Err(NoteRefused::StoreFull));
        store.add("bob", "1234").unwrap();
        let counts = |users, notes, bytes| NoteCounts { users, notes, bytes };
        assert_eq!(store.counts(), counts(2, 3, 20));
        store.delete("alice", last.id);
        assert_eq!(store.counts(), counts(2, 2, 12));
    }
}
