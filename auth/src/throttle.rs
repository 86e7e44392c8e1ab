//! Slowing down who guesses, without locking out who is guessed at.
//!
//! Attempts are taken from token buckets before the password is looked at, and given back when it
//! was right. Two buckets are strict: account and address together, and the address. Two are soft:
//! the account from everywhere, and everybody; where those are empty, only addresses that have failed
//! lately have to wait. So an attacker on other addresses cannot keep a user out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Buckets that are kept; beyond it new keys share one.
pub(crate) const MAX_BUCKETS: usize = 65_536;

/// What one kind of attempt may cost.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Attempts at once.
    burst: f64,
    /// The time after which one attempt is given back.
    refill: Duration,
}

const fn limit(burst: u16, refill: Duration) -> Limit {
    Limit {
        burst: burst as f64,
        refill,
    }
}

const ACCOUNT_AND_ADDRESS: Limit = limit(10, Duration::from_secs(30));
const ADDRESS: Limit = limit(100, Duration::from_secs(3));
const ACCOUNT: Limit = limit(100, Duration::from_secs(36));
const EVERYBODY: Limit = limit(1000, Duration::from_millis(100));
const REGISTRATION_ADDRESS: Limit = limit(20, Duration::from_secs(60));
const REGISTRATION_EVERYBODY: Limit = limit(500, Duration::from_secs(2));
const SESSION: Limit = limit(300, Duration::from_secs(5));
const REFRESH: Limit = limit(120, Duration::from_secs(1));

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    AccountAndAddress(String, IpAddr),
    Address(IpAddr),
    Account(String),
    Everybody,
    RegistrationAddress(IpAddr),
    RegistrationEverybody,
    Session(String),
    Refresh(String),
    Overflow,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    limit: Limit,
    at: Duration,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    buckets: Mutex<HashMap<Key, Bucket>>,
}

/// An attempt that was let through. It counts as failed unless it is [given back](Self::succeeded).
#[derive(Debug)]
#[must_use]
pub(crate) struct Attempt(Vec<Key>);

impl Throttle {
    /// Takes an attempt to log in; an error is the time after which to try again.
    pub fn login(&self, account: &str, address: IpAddr, now: Duration) -> Result<Attempt, Duration> {
        let address = network_of(address);
        let strict = [
            (
                Key::AccountAndAddress(account.to_owned(), address),
                ACCOUNT_AND_ADDRESS,
            ),
            (Key::Address(address), ADDRESS),
        ];
        let soft = [
            (Key::Account(account.to_owned()), ACCOUNT),
            (Key::Everybody, EVERYBODY),
        ];
        let mut buckets = self.buckets();
        for (key, limit) in &strict {
            buckets.check(key, *limit, now)?;
        }
        let suspect = buckets.has_spent(&Key::Address(address), now);
        for (key, limit) in &soft {
            let checked = buckets.check(key, *limit, now);
            if suspect {
                checked?;
            }
        }
        Ok(buckets.take(strict.into_iter().chain(soft), now))
    }

    /// Takes an attempt to register.
    pub fn registration(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let keys = [
            (
                Key::RegistrationAddress(network_of(address)),
                REGISTRATION_ADDRESS,
            ),
            (Key::RegistrationEverybody, REGISTRATION_EVERYBODY),
        ];
        self.take_all(keys, now)
    }

    /// Takes the opening of a session by who knows the password: each leaves rows.
    pub fn session(&self, account: &str, now: Duration) -> Result<(), Duration> {
        self.take_all([(Key::Session(account.to_owned()), SESSION)], now)
    }

    /// Takes a refresh of a session.
    pub fn refresh(&self, session: &str, now: Duration) -> Result<(), Duration> {
        self.take_all([(Key::Refresh(session.to_owned()), REFRESH)], now)
    }

    /// Gives an attempt back: the password was right, or was never looked at.
    pub fn succeeded(&self, attempt: Attempt) {
        let mut buckets = self.buckets();
        for key in attempt.0 {
            if let Some(bucket) = buckets.0.get_mut(&key) {
                bucket.tokens = (bucket.tokens + 1.0).min(bucket.limit.burst);
            }
        }
    }

    fn take_all<const N: usize>(&self, keys: [(Key, Limit); N], now: Duration) -> Result<(), Duration> {
        let mut buckets = self.buckets();
        for (key, limit) in &keys {
            buckets.check(key, *limit, now)?;
        }
        let _ = buckets.take(keys, now);
        Ok(())
    }

    fn buckets(&self) -> Buckets<'_> {
        Buckets(self.buckets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Buckets<'a>(MutexGuard<'a, HashMap<Key, Bucket>>);

impl Buckets<'_> {
    /// Whether the bucket has a token; if not, when it will.
    fn check(&self, key: &Key, limit: Limit, now: Duration) -> Result<(), Duration> {
        let tokens = match self.0.get(key) {
            Some(bucket) => bucket.tokens_at(now),
            None if self.0.len() >= MAX_BUCKETS => self
                .0
                .get(&Key::Overflow)
                .map_or(limit.burst, |b| b.tokens_at(now)),
            None => limit.burst,
        };
        if tokens >= 1.0 {
            Ok(())
        } else {
            Err(limit.refill.mul_f64(1.0 - tokens))
        }
    }

    /// Whether something was taken that has not come back yet.
    fn has_spent(&self, key: &Key, now: Duration) -> bool {
        self.0
            .get(key)
            .is_some_and(|bucket| bucket.tokens_at(now) < bucket.limit.burst)
    }

    fn take(&mut self, keys: impl IntoIterator<Item = (Key, Limit)>, now: Duration) -> Attempt {
        let mut taken = Vec::new();
        for (key, limit) in keys {
            if self.0.len() >= MAX_BUCKETS && !self.0.contains_key(&key) {
                self.0
                    .retain(|_, bucket| bucket.tokens_at(now) < bucket.limit.burst);
            }
            let key = if self.0.len() >= MAX_BUCKETS && !self.0.contains_key(&key) {
                Key::Overflow
            } else {
                key
            };
            let full = Bucket {
                tokens: limit.burst,
                limit,
                at: now,
            };
            let bucket = self.0.entry(key.clone()).or_insert(full);
            // A soft bucket may be empty and stays so.
            *bucket = Bucket {
                tokens: (bucket.tokens_at(now) - 1.0).max(0.0),
                limit: bucket.limit,
                at: now,
            };
            taken.push(key);
        }
        Attempt(taken)
    }
}

impl Bucket {
    fn tokens_at(&self, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        (self.tokens + elapsed / self.limit.refill.as_secs_f64()).min(self.limit.burst)
    }
}

/// Who has one IPv6 address has the whole /64 of it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(1000);

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn fail(throttle: &Throttle, account: &str, address: IpAddr, times: usize) -> usize {
        (0..times)
            .filter(|_| throttle.login(account, address, T0).is_ok())
            .count()
    }

    #[test]
    fn guessing_is_slowed_down_and_the_victim_is_not_locked_out() {
        let throttle = Throttle::default();
        assert_eq!(fail(&throttle, "victim", v4(1), 50), 10);
        let wait = throttle.login("victim", v4(1), T0).unwrap_err();
        assert!(wait <= ACCOUNT_AND_ADDRESS.refill, "{wait:?}");
        assert!(throttle.login("victim", v4(2), T0).is_ok());
        assert!(throttle.login("victim", v4(1), T0 + wait).is_ok());
    }

    #[test]
    fn one_password_for_many_accounts_is_slowed_down_by_address() {
        let throttle = Throttle::default();
        let through = (0..500)
            .filter(|n| throttle.login(&format!("user{n}"), v4(1), T0).is_ok())
            .count();
        assert_eq!(through, 100);
    }

    #[test]
    fn an_empty_account_bucket_stops_only_addresses_that_failed() {
        let throttle = Throttle::default();
        for last in 1..=20 {
            fail(&throttle, "victim", v4(last), 10);
        }
        assert!(throttle.login("victim", v4(1), T0).is_err());
        let fresh = throttle.login("victim", v4(200), T0).unwrap();
        assert!(
            throttle.login("victim", v4(200), T0).is_err(),
            "it has one attempt out"
        );
        throttle.succeeded(fresh);
        assert!(throttle.login("victim", v4(200), T0).is_ok());
    }

    #[test]
    fn success_costs_nothing() {
        let throttle = Throttle::default();
        for _ in 0..1000 {
            let attempt = throttle.login("alice", v4(1), T0).unwrap();
            throttle.succeeded(attempt);
        }
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one() {
        let throttle = Throttle::default();
        let through = (0..50_u16)
            .filter(|n| {
                throttle
                    .login("victim", IpAddr::from([0x2001, 0xdb8, 0, 0, 1, 2, 3, *n]), T0)
                    .is_ok()
            })
            .count();
        assert_eq!(through, 10);
    }

    #[test]
    fn the_table_is_bounded_and_overflow_is_no_way_around() {
        let throttle = Throttle::default();
        for n in 0..MAX_BUCKETS + 1000 {
            let _ = throttle.refresh(&format!("s{n}"), T0);
        }
        assert!(throttle.buckets().0.len() <= MAX_BUCKETS + 1);
        assert!(
            throttle.refresh("one more", T0).is_err(),
            "the shared bucket is empty"
        );
        assert!(
            throttle
                .refresh("one more", T0 + Duration::from_secs(3600))
                .is_ok()
        );
    }
}
