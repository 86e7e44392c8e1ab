//! Random ids, and waits that differ from one process to the next.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// 128 bits in hex.
///
/// # Panics
///
/// Where the operating system's generator fails; there is no safe way on.
pub(crate) fn id() -> String {
    bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A duration up to `limit`.
pub(crate) fn up_to(limit: Duration) -> Duration {
    let part = f64::from(u32::from_le_bytes(bytes())) / f64::from(u32::MAX);
    limit.mul_f64(part)
}

/// Between three quarters and five quarters of it.
pub(crate) fn around(middle: Duration) -> Duration {
    middle.mul_f64(0.75) + up_to(middle / 2)
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// Waits that double up to a limit, each of them jittered.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    limit: Duration,
}

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_millis(50);

impl Backoff {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            next: FIRST_WAIT,
            limit,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST_WAIT;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next.min(self.limit);
        self.next = wait * 2;
        // Never nothing, never more than the limit.
        wait / 2 + up_to(wait / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_never_beyond() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for _ in 0..20 {
            let wait = backoff.next();
            assert!(
                wait >= FIRST_WAIT / 2 && wait <= Duration::from_secs(1),
                "{wait:?}"
            );
        }
        assert!(backoff.next() >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.next() <= FIRST_WAIT);
    }
}
