//! What is done a few times a second, so that no request has to: open requests whose time has passed
//! are ended, those too that nobody can vouch for any longer, and entries are forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use durward_contract::Forgetting;
use durward_policy::{Policy, Standing};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::decision::Known;
use crate::live_streams::LiveStreams;
use crate::proxy::Shared;
use crate::revocation_feed::RevocationFeed;

/// How often.
const INTERVAL: Duration = Duration::from_millis(200);
/// What is open is ended when the mirror could not vouch for it so many times, one after the other.
/// Between an attestation and the entry that it speaks of, the mirror is not whole for a moment.
const MAX_UNKNOWN: u32 = 2;

/// Keeps house.
pub(crate) struct Housekeeper(Arc<Shared>);

impl Housekeeper {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }
}

#[async_trait]
impl BackgroundService for Housekeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Shared { streams, known, .. } = &*self.0;
        let mut ticks = tokio::time::interval(INTERVAL);
        // Two looks right after one another would be one.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Instant::now();
        let forgetting = Forgetting::since(clock::unix_seconds(clock::wall()));
        let mut silence = Silence::default();
        for step in (0..RevocationFeed::SWEEP_STEPS).cycle() {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = ticks.tick() => {}
            }
            let wall = clock::wall();
            streams.end_expired(clock::unix_seconds(wall));
            if let Known::Mirror(feed) = known {
                let generation = self.0.current();
                let (number, policy) = (generation.number, &generation.policy);
                silence.end_what_is_unknown(feed.silence(Instant::now()), number, policy, streams);
                feed.sweep(step, forgetting.until(clock::unix_seconds(wall), start.elapsed()));
            }
        }
    }
}

/// For how many looks in a row the mirror's silence was worth nothing.
#[derive(Debug, Default)]
struct Silence {
    unknown: u32,
}

impl Silence {
    /// Ends what is open on routes that would refuse a new request now. Whoever is known to be
    /// revoked was ended when that came to be known.
    fn end_what_is_unknown(
        &mut self,
        silence: Standing,
        generation: u64,
        policy: &Policy,
        streams: &LiveStreams,
    ) {
        let Standing::Unknown { stale_for } = silence else {
            self.unknown = 0;
            return;
        };
        self.unknown = self.unknown.saturating_add(1);
        if self.unknown >= MAX_UNKNOWN {
            streams.end_unknown(generation, |route| {
                policy
                    .route(route)
                    .is_some_and(|route| route.when_unknown.allows(stale_for))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use durward_contract::UnixSeconds;
    use durward_policy::RouteId;

    use super::*;
    use crate::live_streams::{Cut, RequestHandle};
    use crate::testing::{own_policy, user};

    #[test]
    fn a_moment_of_doubt_ends_nothing_and_two_in_a_row_do() {
        let (policy, streams) = (own_policy(), Arc::new(LiveStreams::default()));
        let handle = Arc::new(RequestHandle::default());
        let _open = streams.register(&handle, &user("alice"), RouteId(0), UnixSeconds(i64::MAX));
        let mut silence = Silence::default();
        let unknown = Standing::Unknown {
            stale_for: Some(Duration::from_secs(9)),
        };
        for standing in [unknown, Standing::Live, unknown] {
            silence.end_what_is_unknown(standing, 1, &policy, &streams);
            assert_eq!(handle.cut(), None);
        }
        silence.end_what_is_unknown(unknown, 1, &policy, &streams);
        assert_eq!(handle.cut(), Some(Cut::Unknown));
    }
}
