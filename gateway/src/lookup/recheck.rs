//! Asking again about what is open, every few seconds.

use std::collections::HashMap;
use std::sync::Arc;

use durward_policy::{LookupAnswer, LookupKeys, Policy, Standing};
use tokio::time::MissedTickBehavior;

use super::Lookups;
use super::exist::exist;
use crate::live_streams::{Cut, LiveStreams, RequestHandle};

/// The most keys that are asked for in one write.
const BATCH: usize = 256;
/// After so many batches without an answer a round is given up; what is left counts as unanswered.
const MAX_FAILED_BATCHES: usize = 4;
/// What is open is ended when there was no answer about it in so many rounds, one after the other.
const MAX_UNANSWERED: u32 = 2;

impl Lookups {
    /// Keeps the connection, and asks again about what is open; for ever.
    pub(crate) async fn keep(&self, policy: &Policy, streams: &LiveStreams) {
        tokio::join!(
            self.store.keep(|| self.note_answer()),
            self.ask_again(policy, streams)
        );
    }

    async fn ask_again(&self, policy: &Policy, streams: &LiveStreams) {
        let mut ticks = tokio::time::interval(self.recheck);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = Unanswered::default();
        loop {
            ticks.tick().await;
            unanswered = self.round(policy, streams, &unanswered).await;
        }
    }

    /// Asks once about all that is open, and ends what does not stand.
    async fn round(&self, policy: &Policy, streams: &LiveStreams, before: &Unanswered) -> Unanswered {
        let open: Vec<_> = streams
            .open()
            .into_iter()
            .filter_map(|(handle, principal)| {
                // A token that has no keys was refused, and so is every service; neither can be
                // among these.
                let keys = policy.lookup()?.keys(principal.user()?).ok()?;
                Some((handle, keys))
            })
            .collect();
        let answers = self.answers(&open).await;
        let mut unanswered = Unanswered::default();
        for ((handle, keys), answer) in open.into_iter().zip(answers) {
            match keys.standing(&answer) {
                Standing::Live => {}
                Standing::Revoked(cause) => {
                    // One that waits for an answer of its own is told, and refused by it.
                    if !handle.tell_answer(answer) {
                        streams.end(&handle, Cut::Revoked(cause));
                    }
                }
                // It gets an answer of its own.
                Standing::Unknown { .. } if handle.is_asking() => {}
                Standing::Unknown { .. } if before.rounds(&handle) + 1 < MAX_UNANSWERED => {
                    unanswered.note(handle, before);
                }
                Standing::Unknown { .. } => streams.end(&handle, Cut::Unknown),
            }
        }
        unanswered
    }

    /// What the store answers about each, as far as it does; the same key is asked for once.
    async fn answers(&self, open: &[(Arc<RequestHandle>, LookupKeys)]) -> Vec<LookupAnswer> {
        let mut keys: Vec<&str> = open.iter().flat_map(|(_, keys)| keys.iter()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut found = HashMap::with_capacity(keys.len());
        let mut failed = 0;
        for batch in keys.chunks(BATCH) {
            let keys = batch.iter().copied();
            let asked = self
                .store
                .ask_besides(self.deadline, |connection| exist(connection, keys))
                .await
                .inspect(|_| self.note_answer());
            match asked {
                Ok(answers) => found.extend(batch.iter().copied().zip(answers)),
                Err(_) => failed += 1,
            }
            if failed == MAX_FAILED_BATCHES {
                break;
            }
        }
        open.iter().map(|(_, keys)| answer_of(keys, &found)).collect()
    }
}

/// An answer only where every key has one.
fn answer_of(keys: &LookupKeys, found: &HashMap<&str, bool>) -> LookupAnswer {
    keys.iter()
        .map(|key| found.get(key).copied())
        .collect::<Option<_>>()
        .map_or(LookupAnswer::Unknown { stale_for: None }, LookupAnswer::Found)
}

/// The open requests about which there was no answer, and in how many rounds. Holding on to their
/// handles keeps an address from meaning another request.
#[derive(Default)]
struct Unanswered(HashMap<usize, (Arc<RequestHandle>, u32)>);

impl Unanswered {
    /// In how many rounds in a row there was none about this one.
    fn rounds(&self, handle: &Arc<RequestHandle>) -> u32 {
        let noted = self.0.get(&Arc::as_ptr(handle).addr());
        noted.map_or(0, |(_, rounds)| *rounds)
    }

    fn note(&mut self, handle: Arc<RequestHandle>, before: &Self) {
        let rounds = before.rounds(&handle) + 1;
        self.0.insert(Arc::as_ptr(&handle).addr(), (handle, rounds));
    }
}
