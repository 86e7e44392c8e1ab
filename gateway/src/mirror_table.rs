//! The mirror's table: 24 bytes an entry, in shards, without an index of expiry.
//!
//! An entry is the target's digest, tweaked by the kind of bar so that bars of different kinds
//! against one target are entries of their own, and one packed word: the threshold, when it may be
//! forgotten, and what it concerns. The digest is keyed and uniform, so it is its own hash.

use std::sync::atomic::{AtomicUsize, Ordering};

use durward_contract::{Bar, UnixSeconds};
use durward_policy::{Cause, RevocationDigest};
use hashbrown::HashTable;
use parking_lot::RwLock;

use crate::sharded::Padded;

/// Shards, so that a sweep or a growth holds up few readers for a short time.
const SHARDS: usize = 64;
/// Parts of the digests' range that are dealt out to the shards.
const SHARES: usize = 1024;
/// Which shard has each share. The last shard has nearly twice as many as the first, and each
/// 2^(1/64) times as many as the one before: so they double one after the other while the table
/// doubles, and never all at once, when half of each would be empty.
const SHARD_OF_SHARE: [u8; SHARES] = {
    const RATIO: f64 = 1.010_889_286_051_700_5;
    let mut shards = [0; SHARES];
    let (mut shard, mut share, mut power) = (0, 0, RATIO);
    while share < SHARES {
        if shard + 1 < SHARDS && share as f64 >= (power - 1.0) * SHARES as f64 {
            shard += 1;
            power *= RATIO;
        } else {
            shards[share] = shard as u8;
            share += 1;
        }
    }
    shards
};
const CAUSES: usize = Cause::ALL.len();
const BARS: usize = 3;

/// `forget_at` is kept in steps of this many seconds, rounded up.
const FORGET_STEP: i64 = 64;
const FORGET_BITS: u32 = 27;
/// The step that never comes.
const NEVER: u64 = (1 << FORGET_BITS) - 1;

/// One entry.
#[derive(Clone, Copy)]
struct Slot {
    key: [u64; 2],
    /// Threshold in 32 bits, `forget_at` in 27, cause in 3, bar in 2.
    word: u64,
}

/// The counts of entries by cause and bar, read before a probe.
type Counts = [[AtomicUsize; BARS]; CAUSES];

pub(crate) struct MirrorTable {
    shards: Box<[Padded<RwLock<HashTable<Slot>>>]>,
    counts: Padded<Counts>,
    total: Padded<AtomicUsize>,
}

/// An entry as the table takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableEntry {
    pub(crate) cause: Cause,
    pub(crate) digest: RevocationDigest,
    pub(crate) bar: Bar,
    pub(crate) forget_at: Option<UnixSeconds>,
}

impl Default for MirrorTable {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Padded::default()).collect(),
            counts: Padded::default(),
            total: Padded::default(),
        }
    }
}

impl MirrorTable {
    pub(crate) fn len(&self) -> usize {
        self.total.0.load(Ordering::Relaxed)
    }

    /// Bytes that the table has allocated.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.0.read().allocation_size())
            .sum()
    }

    /// Adds an entry or raises the one that is there. `false` where the table is full.
    pub(crate) fn insert(&self, entry: TableEntry, limit: usize) -> bool {
        let slot = Slot::new(entry);
        let mut shard = self.shard(slot.key).write();
        if let Some(known) = shard.find_mut(slot.hash(), |other| other.key == slot.key) {
            known.raise(slot);
            return true;
        }
        if self.len() >= limit {
            return false;
        }
        let (cause, bar) = slot.kinds();
        self.counts.0[cause][bar].fetch_add(1, Ordering::SeqCst);
        self.total.0.fetch_add(1, Ordering::SeqCst);
        shard.insert_unique(slot.hash(), slot, Slot::hash);
        true
    }

    /// Takes over what another table holds, and forgets the rest.
    pub(crate) fn replace(&self, fresh: Self) {
        for (old, new) in self.shards.iter().zip(&fresh.shards) {
            let mut old = old.0.write();
            let mut new = new.0.write();
            self.count(&new, 1);
            std::mem::swap(&mut *old, &mut *new);
            self.count(&new, -1);
        }
    }

    /// Makes room for about so many entries in all.
    pub(crate) fn reserve(&self, entries: usize) {
        let mut shares = [0; SHARDS];
        for shard in SHARD_OF_SHARE {
            shares[usize::from(shard)] += 1;
        }
        for (shard, shares) in self.shards.iter().zip(shares) {
            let mut shard = shard.0.write();
            let missing = (entries * shares / SHARES).saturating_sub(shard.len());
            shard.reserve(missing, Slot::hash);
        }
    }

    /// Forgets what may be forgotten at `now` in one shard; the shard after it is next.
    pub(crate) fn sweep(&self, shard: usize, now: UnixSeconds) {
        let Ok(now) = u64::try_from(now.0.div_euclid(FORGET_STEP)) else {
            return;
        };
        let mut shard = self.shards[shard % SHARDS].0.write();
        shard.retain(|slot| {
            let keep = slot.forget_step() == NEVER || slot.forget_step() > now;
            if !keep {
                let (cause, bar) = slot.kinds();
                self.counts.0[cause][bar].fetch_sub(1, Ordering::SeqCst);
                self.total.0.fetch_sub(1, Ordering::SeqCst);
            }
            keep
        });
    }

    /// How many calls of [`Self::sweep`] go once round.
    pub(crate) const SWEEP_STEPS: usize = SHARDS;

    /// Whether an entry bars a credential with this epoch and issue time.
    pub(crate) fn bars(
        &self,
        cause: Cause,
        digest: RevocationDigest,
        epoch: Option<u32>,
        issued_at: Option<UnixSeconds>,
    ) -> bool {
        let counts = &self.counts.0[cause_index(cause)];
        (0..BARS).any(|bar| {
            counts[bar].load(Ordering::SeqCst) > 0
                && self.threshold(digest, bar).is_some_and(|threshold| match bar {
                    EPOCH_BELOW => epoch.is_none_or(|epoch| epoch < threshold),
                    ISSUED_AT_OR_BEFORE => issued_at.is_none_or(|at| at.0 <= i64::from(threshold)),
                    _ => true,
                })
        })
    }

    fn threshold(&self, digest: RevocationDigest, bar: usize) -> Option<u32> {
        let key = tweak(digest, bar);
        let shard = self.shard(key).read();
        shard
            .find(key[1], |slot| slot.key == key)
            .map(|slot| slot.threshold())
    }

    fn shard(&self, key: [u64; 2]) -> &RwLock<HashTable<Slot>> {
        // The table's hash is the other half of the key.
        let share = (key[0] % SHARES as u64) as usize;
        &self.shards[usize::from(SHARD_OF_SHARE[share]) % SHARDS].0
    }

    fn count(&self, shard: &HashTable<Slot>, sign: isize) {
        for slot in shard {
            let (cause, bar) = slot.kinds();
            for counter in [&self.counts.0[cause][bar], &self.total.0] {
                if sign > 0 {
                    counter.fetch_add(1, Ordering::SeqCst);
                } else {
                    counter.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }
}

const ALWAYS: usize = 0;
const EPOCH_BELOW: usize = 1;
const ISSUED_AT_OR_BEFORE: usize = 2;

fn cause_index(cause: Cause) -> usize {
    match cause {
        Cause::Token => 0,
        Cause::Session => 1,
        Cause::User => 2,
        Cause::Client => 3,
        Cause::Everyone => 4,
        Cause::SigningKey => 5,
        Cause::ApiKey => 6,
        Cause::Listed => 7,
    }
}

fn tweak(digest: RevocationDigest, bar: usize) -> [u64; 2] {
    let low = (digest.0 & u128::from(u64::MAX)) as u64;
    let high = (digest.0 >> 64) as u64;
    [low, high ^ (bar as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)]
}

impl Slot {
    fn new(entry: TableEntry) -> Self {
        let (bar, threshold) = match entry.bar {
            Bar::Always => (ALWAYS, 0),
            Bar::EpochBelow(epoch) => (EPOCH_BELOW, epoch),
            // An instant beyond the range bars more than it says, never less.
            Bar::IssuedAtOrBefore(at) => (
                ISSUED_AT_OR_BEFORE,
                u32::try_from(at.0.max(0)).unwrap_or(u32::MAX),
            ),
        };
        let step = entry.forget_at.map_or(NEVER, |at| {
            let step = at.0.max(0).div_euclid(FORGET_STEP).saturating_add(1);
            u64::try_from(step).unwrap_or(NEVER).min(NEVER)
        });
        let kinds = (cause_index(entry.cause) as u64) << 2 | bar as u64;
        Self {
            key: tweak(entry.digest, bar),
            word: u64::from(threshold) << 32 | step << 5 | kinds,
        }
    }

    fn hash(&self) -> u64 {
        self.key[1]
    }

    fn threshold(&self) -> u32 {
        (self.word >> 32) as u32
    }

    fn forget_step(&self) -> u64 {
        self.word >> 5 & NEVER
    }

    fn kinds(&self) -> (usize, usize) {
        ((self.word >> 2 & 7) as usize, (self.word & 3) as usize)
    }

    /// Entries only ever narrow access: the higher threshold and the later forgetting win.
    fn raise(&mut self, other: Self) {
        let threshold = u64::from(self.threshold().max(other.threshold()));
        let step = self.forget_step().max(other.forget_step());
        self.word = threshold << 32 | step << 5 | self.word & 0x1f;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cause: Cause, id: u128, bar: Bar, forget_at: Option<i64>) -> TableEntry {
        TableEntry {
            cause,
            digest: digest(id),
            bar,
            forget_at: forget_at.map(UnixSeconds),
        }
    }

    /// Spread like a keyed hash spreads.
    fn digest(id: u128) -> RevocationDigest {
        let mut bits = id
            .wrapping_add(1)
            .wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
        bits ^= bits >> 61;
        bits = bits.wrapping_mul(0x9fb2_1c65_1e98_df25_d6e8_feb8_6659_fd93);
        RevocationDigest(bits ^ bits >> 64)
    }

    fn at(seconds: i64) -> Option<UnixSeconds> {
        Some(UnixSeconds(seconds))
    }

    #[test]
    fn each_bar_refuses_what_it_says_and_no_more() {
        let table = MirrorTable::default();
        for (id, bar) in [
            (1, Bar::Always),
            (2, Bar::EpochBelow(5)),
            (3, Bar::IssuedAtOrBefore(UnixSeconds(100))),
        ] {
            assert!(table.insert(entry(Cause::User, id, bar, None), 100));
        }
        let bars = |id, epoch, issued_at| table.bars(Cause::User, digest(id), epoch, issued_at);
        assert!(bars(1, Some(9), at(999)));
        assert!(bars(2, Some(4), at(999)) && bars(2, None, at(999)) && !bars(2, Some(5), at(0)));
        assert!(bars(3, Some(9), at(100)) && bars(3, Some(9), None) && !bars(3, None, at(101)));
        assert!(!bars(4, None, None));
        assert!(
            !table.bars(Cause::Session, digest(1), None, None),
            "another kind has no entries"
        );
    }

    #[test]
    fn bars_of_two_kinds_against_one_target_both_bite_in_either_order() {
        let bars = [
            Bar::EpochBelow(5),
            Bar::IssuedAtOrBefore(UnixSeconds(100)),
            Bar::EpochBelow(3),
        ];
        for order in [[0, 1, 2], [2, 1, 0]] {
            let table = MirrorTable::default();
            for index in order {
                assert!(table.insert(entry(Cause::User, 1, bars[index], Some(1000)), 100));
            }
            assert_eq!(table.len(), 2);
            assert!(table.bars(Cause::User, digest(1), Some(4), at(101)));
            assert!(table.bars(Cause::User, digest(1), Some(5), at(100)));
            assert!(!table.bars(Cause::User, digest(1), Some(5), at(101)));
        }
    }

    #[test]
    fn what_may_be_forgotten_is_swept_later_never_earlier() {
        let table = MirrorTable::default();
        assert!(table.insert(entry(Cause::Token, 1, Bar::Always, Some(1000)), 100));
        assert!(table.insert(entry(Cause::Token, 2, Bar::Always, None), 100));
        assert!(table.insert(entry(Cause::Token, 3, Bar::Always, Some(i64::MAX)), 100));
        let sweep = |now| (0..MirrorTable::SWEEP_STEPS).for_each(|step| table.sweep(step, UnixSeconds(now)));
        sweep(1000);
        assert_eq!(table.len(), 3);
        sweep(1000 + FORGET_STEP);
        assert_eq!(table.len(), 2);
        sweep(i64::MAX / 2);
        assert!(
            table.bars(Cause::Token, digest(2), None, None),
            "nothing is not never"
        );
        assert!(table.bars(Cause::Token, digest(3), None, None));
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let table = MirrorTable::default();
        assert!((0..10).all(|id| table.insert(entry(Cause::User, id, Bar::Always, None), 10)));
        assert!(!table.insert(entry(Cause::User, 10, Bar::Always, None), 10));
        assert!(
            table.insert(entry(Cause::User, 3, Bar::Always, None), 10),
            "known ones can be raised"
        );
        assert!((0..10).all(|id| table.bars(Cause::User, digest(id), None, None)));
    }

    #[test]
    fn a_replacement_forgets_the_rest_and_counts_right() {
        let table = MirrorTable::default();
        assert!((0..1000).all(|id| table.insert(entry(Cause::User, id, Bar::Always, None), 10_000)));
        let fresh = MirrorTable::default();
        assert!((500..700).all(|id| fresh.insert(entry(Cause::Session, id, Bar::Always, None), 10_000)));
        table.replace(fresh);
        assert_eq!(table.len(), 200);
        assert!(!table.bars(Cause::User, digest(600), None, None));
        assert!(table.bars(Cause::Session, digest(600), None, None));
    }

    #[test]
    fn an_entry_takes_at_most_48_bytes_however_many_there_are() {
        let table = MirrorTable::default();
        let mut worst = 0.0_f64;
        for id in 0..600_000 {
            assert!(table.insert(entry(Cause::User, id, Bar::EpochBelow(1), Some(1000)), usize::MAX));
            if id > 100_000 && id % 997 == 0 {
                worst = worst.max(table.allocated() as f64 / table.len() as f64);
            }
        }
        assert!(worst <= 48.0, "{worst}");
        assert_eq!(size_of::<Slot>(), 24);
    }

    #[test]
    fn shards_have_shares_that_grow_evenly() {
        let mut shares = [0_usize; SHARDS];
        for shard in SHARD_OF_SHARE {
            shares[usize::from(shard)] += 1;
        }
        assert!(
            shares.is_sorted_by(|left, right| *right + 1 >= *left),
            "{shares:?}"
        );
        assert!(
            (11..=12).contains(&shares[0]) && (21..=23).contains(&shares[SHARDS - 1]),
            "{shares:?}"
        );
    }

    #[test]
    fn a_load_makes_room_once() {
        let more = MirrorTable::default();
        more.reserve(100_000);
        let before = more.allocated();
        assert!((0..90_000).all(|id| more.insert(entry(Cause::User, id, Bar::Always, None), usize::MAX)));
        assert_eq!(more.allocated(), before, "no shard has grown");
    }
}
