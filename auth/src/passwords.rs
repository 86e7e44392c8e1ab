//! Passwords: what may be one, and how they are hashed.
//!
//! Hashing costs about 20 MiB and 20 ms each, so it runs on blocking threads, as many at once as
//! configured, with a bounded queue before them. A login flood fills the queue and nothing else.

use std::num::NonZeroUsize;
use std::sync::Arc;

use argon2::Params;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;

use crate::argon2_memory::{Hasher, Weak};
use crate::common_passwords;
use crate::metrics::Metrics;
use crate::problem::{Problem, Reason};
use crate::random;
use crate::secret::Secret;
use crate::store::users::PasswordHash;

/// Longest password as it arrives, in bytes: checked before anything is done with it. Normalising
/// can make a text eighteen times as long.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// Fewest characters of a new password, after normalising.
pub const MIN_PASSWORD_CHARACTERS: usize = 8;
/// Most characters of a new password, after normalising.
pub const MAX_PASSWORD_CHARACTERS: usize = 256;
/// Password checks that wait for each one that runs; the next one is refused.
pub const QUEUE_PER_WORKER: usize = 16;

/// How much work a hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
}

impl PasswordCost {
    /// OWASP's minimum for Argon2id: 19 MiB, two passes, one lane.
    pub const PRODUCTION: Self = Self {
        memory_kib: 19 * 1024,
        iterations: 2,
    };
}

/// A password in the form that is hashed: NFKC, so that it is the same from every keyboard
/// (NIST SP 800-63B section 3.1.1.2).
#[derive(Clone, Debug)]
pub(crate) struct Password(Secret);

impl Password {
    /// A password that somebody logs in with. Only its size is looked at.
    pub fn given(secret: &Secret) -> Result<Self, Reason> {
        if secret.expose().len() > MAX_PASSWORD_BYTES {
            return Err(Reason::PasswordTooLong);
        }
        Ok(Self(Secret::new(secret.expose().nfkc().collect::<String>())))
    }

    /// A password that somebody wants to have. `context` is what it must not simply be: the user's
    /// name, the service's names.
    pub fn chosen(secret: &Secret, context: &[&str]) -> Result<Self, Reason> {
        let password = Self::given(secret)?;
        let text = password.0.expose();
        match text.chars().count() {
            ..MIN_PASSWORD_CHARACTERS => Err(Reason::PasswordTooShort),
            count if count > MAX_PASSWORD_CHARACTERS => Err(Reason::PasswordTooLong),
            _ if common_passwords::is_easy_to_guess(text, context) => Err(Reason::PasswordTooCommon),
            _ => Ok(password),
        }
    }
}

/// Hashes and checks passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    hasher: Arc<Hasher>,
    workers: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// A hash of nothing that anybody knows, for users who do not exist.
    dummy: PasswordHash,
    waiting: IntGauge,
    running: IntGauge,
}

/// Whether a password was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// It was not, or there is no such user.
    Wrong,
    /// It was, and its hash is up to date.
    Right,
    /// It was, and its hash should be made anew with today's parameters.
    RightButWeak,
}

impl Passwords {
    pub fn new(cost: PasswordCost, parallelism: NonZeroUsize, metrics: &Metrics) -> Result<Self, Problem> {
        let params = Params::new(cost.memory_kib, cost.iterations, 1, None)
            .map_err(|error| Problem::internal("reading the Argon2 parameters", &error))?;
        let hasher = Arc::new(Hasher::new(params));
        let dummy = hasher.hash(&Secret::new(random::password()))?;
        Ok(Self {
            hasher,
            workers: Arc::new(Semaphore::new(parallelism.get())),
            places: Arc::new(Semaphore::new(parallelism.get() * (QUEUE_PER_WORKER + 1))),
            dummy,
            waiting: metrics.hashing_waiting.clone(),
            running: metrics.hashing_running.clone(),
        })
    }

    /// Hashes a password.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Problem> {
        let hasher = Arc::clone(&self.hasher);
        self.run(move || hasher.hash(&password.0)).await?
    }

    /// Checks a password against a user's hash, or, where there is no such user, against one that
    /// nothing fits, for the same time.
    pub async fn verify(&self, password: Password, hash: Option<PasswordHash>) -> Result<Verified, Problem> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.clone());
        let hasher = Arc::clone(&self.hasher);
        let verified = self.run(move || hasher.verify(&password.0, &hash)).await??;
        Ok(match verified.filter(|_| known) {
            Some(Weak(false)) => Verified::Right,
            Some(Weak(true)) => Verified::RightButWeak,
            None => Verified::Wrong,
        })
    }

    /// Runs `work` when it is its turn. A client that hangs up gives its place back only when its
    /// work is done: the memory is in use until then.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Problem::new(Reason::Overloaded))?;
        let worker = {
            let _waiting = Counted::new(&self.waiting);
            Arc::clone(&self.workers).acquire_owned().await
        };
        let worker = worker.map_err(|error| Problem::internal("waiting to hash a password", &error))?;
        let running = Counted::new(&self.running);
        let held: (OwnedSemaphorePermit, OwnedSemaphorePermit, Counted) = (place, worker, running);
        tokio::task::spawn_blocking(move || {
            let _held = held;
            work()
        })
        .await
        .map_err(|error| Problem::internal("hashing a password", &error))
    }
}

/// Counts itself in a gauge for as long as it lives.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;

    const CHEAP: PasswordCost = PasswordCost {
        memory_kib: 64,
        iterations: 1,
    };

    fn passwords(cost: PasswordCost, parallelism: usize) -> Passwords {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Passwords::new(cost, NonZeroUsize::new(parallelism).unwrap(), &metrics).unwrap()
    }

    fn given(text: &str) -> Password {
        Password::given(&Secret::new(text)).unwrap()
    }

    #[tokio::test]
    async fn production_hashes_have_owasp_parameters_and_a_salt_of_16_bytes() {
        let hash = passwords(PasswordCost::PRODUCTION, 1)
            .hash(given("correct horse"))
            .await
            .unwrap();
        assert!(
            hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            hash.0
        );
        assert_eq!(hash.0.split('$').nth(4).unwrap().len(), 22);
    }

    #[tokio::test]
    async fn passwords_are_compared_whole_and_as_received() {
        let passwords = passwords(CHEAP, 1);
        let long = "x".repeat(72);
        for (set, tried, right) in [
            ("correct horse", "correct horse", true),
            ("correct horse", "Correct horse", false),
            ("correct horse", "correct horse ", false),
            ("nine\0bytes", "nine\0other", false),
            (&format!("{long}a"), &format!("{long}b"), false),
            (&"y".repeat(128), &"y".repeat(128), true),
            ("caf\u{e9} 12345", "cafe\u{301} 12345", true),
            ("🐴🔋📎🧷🐴🔋📎🧷", "🐴🔋📎🧷🐴🔋📎🧷", true),
        ] {
            let hash = passwords.hash(given(set)).await.unwrap();
            let verified = passwords.verify(given(tried), Some(hash)).await.unwrap();
            assert_eq!(verified == Verified::Right, right, "{set:?} {tried:?}");
        }
        assert_eq!(
            passwords.verify(given("anything"), None).await.unwrap(),
            Verified::Wrong
        );
    }

    #[tokio::test]
    async fn a_hash_with_lower_parameters_is_right_but_weak() {
        let weak = passwords(CHEAP, 1).hash(given("correct horse")).await.unwrap();
        let today = passwords(
            PasswordCost {
                memory_kib: 128,
                iterations: 1,
            },
            1,
        );
        assert_eq!(
            today.verify(given("correct horse"), Some(weak)).await.unwrap(),
            Verified::RightButWeak
        );
    }

    #[test]
    fn sizes_are_checked_before_and_after_normalising() {
        let chosen = |text: &str| Password::chosen(&Secret::new(text), &[]).map(drop);
        assert_eq!(chosen("seven77"), Err(Reason::PasswordTooShort));
        assert_eq!(chosen(&"kx7".repeat(86)), Err(Reason::PasswordTooLong));
        assert_eq!(chosen(&"\u{fdfa}".repeat(340)), Err(Reason::PasswordTooLong));
        assert_eq!(chosen(&"a1".repeat(1 << 19)), Err(Reason::PasswordTooLong));
        let longest: String = (0..256)
            .filter_map(|n| char::from_u32(0x4e00 + n * n * 7 % 5000))
            .collect();
        assert_eq!(chosen(&longest), Ok(()));
        assert_eq!(chosen("kumquat-harvest"), Ok(()));
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_those_beyond_it_are_refused_at_once() {
        let passwords = Arc::new(passwords(CHEAP, 2));
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let hold = 2 * (QUEUE_PER_WORKER + 1);
        let mut held = Vec::new();
        for _ in 0..hold {
            let (passwords, gate) = (Arc::clone(&passwords), Arc::clone(&gate));
            held.push(tokio::spawn(async move {
                passwords
                    .run(move || gate.lock().unwrap().recv().is_ok())
                    .await
                    .map(drop)
            }));
        }
        while passwords.places.available_permits() > 0 || passwords.running.get() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(passwords.running.get(), 2);
        assert_eq!(passwords.waiting.get(), 2 * QUEUE_PER_WORKER as i64);
        assert_eq!(
            passwords.verify(given("x"), None).await,
            Err(Problem::new(Reason::Overloaded))
        );
        drop(release);
        for task in held {
            task.await.unwrap().unwrap();
        }
        assert_eq!(passwords.verify(given("x"), None).await, Ok(Verified::Wrong));
        assert_eq!((passwords.waiting.get(), passwords.running.get()), (0, 0));
    }
}
