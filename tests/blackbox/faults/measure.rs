//! Asking in somebody's name over and over, and what is made of the answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Ask, Connection};

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    pub sent: Instant,
    pub answered: Instant,
    /// Nothing where the connection broke.
    pub status: Option<u16>,
    pub reason: String,
}

impl Sample {
    pub fn accepted(&self) -> bool {
        self.status == Some(200)
    }
}

/// Somebody who asks until told to stop.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Asks the edge at `edge` from now on.
    pub fn start(edge: SocketAddr, ask: Ask) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (ending, keeping) = (Arc::clone(&stop), Arc::clone(&samples));
        let thread = thread::spawn(move || {
            let mut connection = None;
            while !ending.load(Ordering::SeqCst) {
                let sample = sample(edge, &ask, &mut connection);
                keeping.lock().unwrap().push(sample);
                thread::sleep(PAUSE);
            }
        });
        Self {
            stop,
            samples,
            thread: Some(thread),
        }
    }

    /// The newest answer.
    pub fn last(&self) -> Option<Sample> {
        self.samples.lock().unwrap().last().cloned()
    }

    /// Stops, and returns every answer.
    pub fn finish(mut self) -> Vec<Sample> {
        self.end();
        std::mem::take(&mut *self.samples.lock().unwrap())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn sample(edge: SocketAddr, ask: &Ask, kept: &mut Option<Connection>) -> Sample {
    let sent = Instant::now();
    let mut connection = kept.take().or_else(|| Connection::try_open(edge).ok());
    let answer = connection
        .as_mut()
        .and_then(|connection| connection.ask_if_answered(ask));
    let answered = Instant::now();
    let (status, reason) = match &answer {
        Some(answer) => (Some(answer.status), answer.reason()),
        None => (None, "the connection broke".to_owned()),
    };
    *kept = connection.filter(|_| answer.is_some());
    Sample {
        sent,
        answered,
        status,
        reason,
    }
}

/// What a fault has done.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub fault: String,
    /// Requests of somebody who was banned before the fault that were accepted.
    pub known_accepted: usize,
    /// Requests of somebody who was banned during the fault that were accepted, sent after the
    /// acknowledgement: how many, and how long after it the last one.
    pub accepted_after_ban: usize,
    pub last_accepted: Duration,
    /// Of these, those sent later than `max_staleness` after the acknowledgement.
    pub accepted_beyond_bound: usize,
    /// Requests of somebody who may pass that were refused or not answered, and the time from the
    /// first to the last of them.
    pub valid_refused: usize,
    pub refused_for: Duration,
    /// From the end of the fault to the last of these refusals.
    pub recovered_after: Duration,
}

/// What was seen of one fault.
#[derive(Debug)]
pub struct Observations {
    pub known: Vec<Sample>,
    pub victim: Vec<Sample>,
    pub valid: Vec<Sample>,
    /// When the ban during the fault was acknowledged, if one was.
    pub acknowledged: Option<Instant>,
    pub healed: Instant,
    pub bound: Duration,
}

impl Observations {
    pub fn outcome(&self, fault: &str) -> Outcome {
        let late = |sample: &&Sample| {
            sample.accepted()
                && self
                    .acknowledged
                    .is_some_and(|acknowledged| sample.sent > acknowledged)
        };
        let after_ban: Vec<Duration> = self
            .victim
            .iter()
            .filter(late)
            .filter_map(|sample| Some(sample.sent - self.acknowledged?))
            .collect();
        let refused: Vec<&Sample> = self.valid.iter().filter(|sample| !sample.accepted()).collect();
        let span = |first: &&Sample, last: &&Sample| last.answered - first.sent;
        Outcome {
            fault: fault.to_owned(),
            known_accepted: self.known.iter().filter(|sample| sample.accepted()).count(),
            accepted_after_ban: after_ban.len(),
            last_accepted: after_ban.iter().max().copied().unwrap_or_default(),
            accepted_beyond_bound: after_ban.iter().filter(|late| **late > self.bound).count(),
            valid_refused: refused.len(),
            refused_for: refused
                .first()
                .zip(refused.last())
                .map(|(first, last)| span(first, last))
                .unwrap_or_default(),
            recovered_after: refused
                .last()
                .map(|last| last.answered.saturating_duration_since(self.healed))
                .unwrap_or_default(),
        }
    }
}

impl Outcome {
    /// The promise: what is known stays refused, and what is not is accepted no longer than the bound.
    #[track_caller]
    pub fn holds(&self) {
        assert_eq!(
            self.known_accepted, 0,
            "a known revocation was forgotten: {self:?}"
        );
        assert_eq!(
            self.accepted_beyond_bound, 0,
            "accepted beyond the bound: {self:?}"
        );
    }
}
