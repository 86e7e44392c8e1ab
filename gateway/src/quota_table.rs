//! The quotas of many clients, in memory that is taken once and never grows.
//!
//! A place of the table is one of [`WAYS`] that a client's key may lie in; each group of them has a
//! lock of its own. A quota that is whole again is as good as none, so its place is free. Where none
//! is, a new client takes over the place of the one that owes least, *with what that one owes*: so
//! nobody ever passes more often than his quota allows, and whoever owes much cannot get rid of it by
//! filling the table. (Crates that limit by key keep a map that grows with its keys, or forget.)

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use durward_policy::{Quota, Spent, Taken};
use parking_lot::Mutex;

/// How many clients a table tells apart at the same time.
pub(crate) const MAX_CLIENTS: usize = 1 << 16;
/// In how many places a client may lie.
const WAYS: usize = 8;

/// A client, as a table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey(u128);

impl ClientKey {
    /// A client by its address. Who has one IPv6 address has the whole /64 of it.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6) & !u128::from(u64::MAX),
        })
    }

    /// A client by what else names it: 128 bits of a digest.
    pub(crate) fn of_digest(digest: u128) -> Self {
        Self(digest)
    }

    /// The bits of it.
    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

/// The quotas.
#[derive(Debug)]
pub(crate) struct QuotaTable {
    groups: Box<[Mutex<[Place; WAYS]>]>,
    /// So that nobody can aim for a group.
    hasher: RandomState,
    started: Instant,
    taken_over: AtomicU64,
}

/// Nanoseconds since the table was made; 0 is a free place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    key: u128,
    whole_at: u64,
}

impl QuotaTable {
    /// For [`MAX_CLIENTS`], about 1.7 MiB.
    pub(crate) fn new() -> Self {
        Self::with_clients(MAX_CLIENTS)
    }

    fn with_clients(clients: usize) -> Self {
        let groups = (clients / WAYS).max(1);
        Self {
            groups: (0..groups).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            started: Instant::now(),
            taken_over: AtomicU64::new(0),
        }
    }

    /// Takes one from the quota of a client.
    pub(crate) fn take(&self, key: ClientKey, quota: Quota, now: Instant) -> Result<Taken, Spent> {
        let now = self.nanoseconds(now);
        let mut group = self.group(key).lock();
        let known = group.iter().position(|place| place.key == key.0);
        let index = known.unwrap_or_else(|| least_owing(&group));
        let place = &mut group[index];
        // What a predecessor owes is taken over, and counts even where it refuses.
        let taken = quota.take(place.whole_at, now)?;
        if known.is_none() && place.whole_at > now {
            self.taken_over.fetch_add(1, Ordering::Relaxed);
        }
        *place = Place {
            key: key.0,
            whole_at: taken.whole_at,
        };
        Ok(taken)
    }

    /// Whether one could be taken. A client that is not known yet is not entered by it.
    pub(crate) fn check(&self, key: ClientKey, quota: Quota, now: Instant) -> Result<(), Spent> {
        let now = self.nanoseconds(now);
        let group = self.group(key).lock();
        let known = group.iter().position(|place| place.key == key.0);
        let index = known.unwrap_or_else(|| least_owing(&group));
        quota.check(group[index].whole_at, now)
    }

    /// How often a client took over what another owed, because the table was full.
    pub(crate) fn taken_over(&self) -> u64 {
        self.taken_over.load(Ordering::Relaxed)
    }

    fn group(&self, key: ClientKey) -> &Mutex<[Place; WAYS]> {
        let hash = self.hasher.hash_one(key);
        let count = self.groups.len() as u64;
        &self.groups[usize::try_from(hash % count).unwrap_or_default()]
    }

    /// From 1, so that a new place is free at any instant.
    fn nanoseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }
}

fn least_owing(group: &[Place; WAYS]) -> usize {
    let owing = group.iter().enumerate().min_by_key(|(_, place)| place.whole_at);
    owing.map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use durward_policy::Rate;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quota(burst: u32) -> Quota {
        Quota::new(Rate::new(1, SECOND), burst)
    }

    fn key(text: &str) -> ClientKey {
        ClientKey::of_address(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_a_client_and_a_network_of_ipv6_is_one() {
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }

    #[test]
    fn each_client_has_a_quota_of_its_own_and_it_comes_back() {
        let table = QuotaTable::new();
        let now = Instant::now();
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        for _ in 0..2 {
            assert!(table.check(one, quota(2), now).is_ok());
            table.take(one, quota(2), now).unwrap();
        }
        let spent = table.take(one, quota(2), now).unwrap_err();
        assert_eq!(table.check(one, quota(2), now), Err(spent));
        assert!(table.take(other, quota(2), now).is_ok());
        assert!(table.take(one, quota(2), now + SECOND).is_ok());
        assert_eq!(table.taken_over(), 0);
    }

    #[test]
    fn a_check_takes_no_place() {
        let table = QuotaTable::with_clients(WAYS);
        for last in 0..=255_u8 {
            let key = ClientKey::of_address([192, 0, 2, last].into());
            assert!(table.check(key, quota(1), Instant::now()).is_ok());
        }
        assert_eq!(table.taken_over(), 0);
        assert!(table.groups[0].lock().iter().all(|place| place.whole_at == 0));
    }

    #[test]
    fn whoever_fills_the_table_gets_rid_of_nothing() {
        let table = QuotaTable::with_clients(WAYS);
        let now = Instant::now();
        let guilty = key("192.0.2.1");
        for _ in 0..10 {
            table.take(guilty, quota(10), now).unwrap();
        }
        for last in 2..=255_u8 {
            let other = ClientKey::of_address([192, 0, 2, last].into());
            let _ = table.take(other, quota(10), now);
        }
        assert!(table.taken_over() > 0);
        assert!(table.take(guilty, quota(10), now).is_err());
        assert!(table.check(guilty, quota(10), now).is_err());
        assert!(
            table.check(key("198.51.100.1"), quota(10), now).is_err(),
            "nor is he another"
        );
    }

    #[test]
    fn in_a_table_that_is_too_small_nobody_passes_more_often_than_his_quota() {
        let table = QuotaTable::with_clients(2 * WAYS);
        let start = Instant::now();
        let mut passed: HashMap<u32, Vec<Duration>> = HashMap::new();
        // A walk without a pattern through many more clients than there are places.
        let mut step = 1_u32;
        for at in 0..20_000_u32 {
            step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let client = step >> 25;
            let since = Duration::from_millis(u64::from(at) * 7);
            let key = ClientKey::of_digest(u128::from(client) + 1);
            if table.take(key, quota(5), start + since).is_ok() {
                passed.entry(client).or_default().push(since);
            }
        }
        assert!(table.taken_over() > 0);
        for times in passed.values() {
            for (index, from) in times.iter().enumerate() {
                for (more, to) in times[index..].iter().enumerate() {
                    let allowed = 5 + usize::try_from((*to - *from).as_secs()).unwrap();
                    assert!(more < allowed, "{} within {:?}", more + 1, *to - *from);
                }
            }
        }
    }

    #[test]
    fn threads_share_one_quota() {
        let table = QuotaTable::new();
        let now = Instant::now();
        let passed: usize = std::thread::scope(|scope| {
            let take = || {
                (0..500)
                    .filter(|_| table.take(key("192.0.2.1"), quota(100), now).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 100);
    }
}
