//! From Pingora's header to the decision. All rules are `durward_policy::decide`'s.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use durward_contract::UnixSeconds;
use durward_policy::{
    Decision, GrantStanding, GrantedKey, KeyDigest, LookupAnswer, LookupKeys, Pending, Phase, Policy,
    Preflight, Principal, RawRequest, Reason, Refusal, Rejection, RequestFacts, Revocations, Standing, Step,
    Trace, VerifiedToken, decide,
};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::clock;
use crate::generation::Generation;
use crate::judged_again::{RequestHead, Standing as OpenStanding, Verdict, judge_again};
use crate::listener_tls::TlsConnection;
use crate::lookup::Lookups;
use crate::metrics::PhaseTimes;
use crate::proxy::Shared;
use crate::request_record::RequestRecord;
use crate::revocation_feed::RevocationFeed;
use crate::wire_checks;

/// Who is asked about revocations.
pub(crate) enum Known {
    /// Nobody: `revocations: none`.
    Nothing,
    /// The mirror.
    Mirror(Arc<RevocationFeed>),
    /// The application's own store, for each request.
    Store(Arc<Lookups>),
}

impl Known {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Nothing | Self::Store(_) => 0,
            Self::Mirror(feed) => feed.version(),
        }
    }

    /// Whether anything is known against a principal that was permitted a moment ago.
    fn bars(&self, principal: &Principal) -> bool {
        match self {
            // A request that asks the store is among the open ones before it does.
            Self::Nothing | Self::Store(_) => false,
            Self::Mirror(feed) => feed.barred(principal).is_some(),
        }
    }

    /// Asks the store, where there is one to ask.
    pub(crate) async fn ask(&self, keys: &LookupKeys) -> LookupAnswer {
        match self {
            Self::Store(lookups) => lookups.ask(keys).await,
            Self::Nothing | Self::Mirror(_) => LookupAnswer::Unknown { stale_for: None },
        }
    }
}

impl Revocations for Known {
    fn standing(&self, token: &VerifiedToken, now: UnixSeconds) -> Standing {
        match self {
            Self::Nothing => Standing::Live,
            Self::Mirror(feed) => feed.standing(token, now),
            // Only an answer of the store itself says more.
            Self::Store(_) => Standing::Unknown { stale_for: None },
        }
    }

    fn granted_key(&self, digest: &KeyDigest) -> GrantStanding {
        match self {
            // No list of an application's grants anything.
            Self::Nothing | Self::Store(_) => GrantStanding::Unknown { stale_for: None },
            Self::Mirror(feed) => feed.granted_key(digest),
        }
    }

    fn key_standing(&self, key: &GrantedKey) -> Standing {
        match self {
            Self::Nothing | Self::Store(_) => Standing::Unknown { stale_for: None },
            Self::Mirror(feed) => feed.key_standing(key),
        }
    }
}

/// What is known as of an instant that was read when the request began, microseconds ago.
struct KnownAt<'k> {
    known: &'k Known,
    at: Instant,
}

impl Revocations for KnownAt<'_> {
    fn standing(&self, token: &VerifiedToken, now: UnixSeconds) -> Standing {
        match self.known {
            Known::Nothing | Known::Store(_) => self.known.standing(token, now),
            Known::Mirror(feed) => feed.standing_at(token, self.at),
        }
    }

    fn granted_key(&self, digest: &KeyDigest) -> GrantStanding {
        self.known.granted_key(digest)
    }

    fn key_standing(&self, key: &GrantedKey) -> Standing {
        self.known.key_standing(key)
    }
}

/// A request after its decision, or before the store was asked.
pub(crate) enum Admission<'s> {
    /// It is decided; a rejection is for the caller to answer with.
    Decided(Result<(), Rejection>),
    /// In lookup mode.
    Asking(Box<Asking<'s>>),
}

/// A request that is decided on: one that is proxied, or one that a proxy asks about.
pub(crate) trait Asked {
    /// Its facts; `raw` is the header section as it was sent.
    fn facts<'a>(
        &'a self,
        shared: &Shared,
        generation: &Generation,
        raw: &'a [u8],
    ) -> Result<RequestFacts<'a>, Rejection>;

    /// The target that would be forwarded if nobody set another.
    fn sent_target(&self) -> &[u8];

    /// What it is judged again by while it is open; `raw` is the header section as it was sent.
    fn head(&self, raw: &Bytes) -> RequestHead;
}

/// Decides on a request, enters it among the open ones where it is permitted, and counts the
/// decision.
pub(crate) fn admit<'s>(
    shared: &'s Shared,
    generation: &'s Generation,
    asked: &impl Asked,
    record: &mut RequestRecord,
) -> Admission<'s> {
    let mut timer = PhaseTimer::since(record.started);
    record.wall = clock::wall_at(record.started);
    let now = clock::unix_seconds(record.wall);
    let version = shared.known.version();
    let result = match judge(shared, generation, asked, record, now, &mut timer) {
        Ok(None) => enter(shared, generation, asked, record, version),
        Ok(Some(pending)) => {
            return Admission::Asking(Box::new(Asking {
                shared,
                generation,
                head: asked.head(&record.raw),
                pending,
                timer,
            }));
        }
        Err(rejection) => Err(rejection),
    };
    Admission::Decided(settle(shared, generation, record, &mut timer, result))
}

/// What a preflight is answered; nothing where the request is none, or its route leaves it to the
/// backend. Counted as a decision that permits: the permission is to ask.
pub(crate) fn preflight(
    shared: &Shared,
    generation: &Generation,
    session: &Session,
    record: &mut RequestRecord,
) -> Option<Preflight> {
    let facts = session.facts(shared, generation, &record.raw).ok()?;
    let preflight = durward_policy::preflight(&generation.policy, &facts)?;
    record.wall = clock::wall_at(record.started);
    record.route = Some(preflight.route);
    record.decided_at = clock::now();
    record.decision_took = record.decided_at - record.started;
    record.is_preflight = true;
    let counts = generation.counts(record.route);
    shared.metrics.decided(counts, None, record.decision_took, None);
    Some(preflight)
}

/// A request that waits for the store's answer.
pub(crate) struct Asking<'s> {
    shared: &'s Shared,
    generation: &'s Generation,
    head: RequestHead,
    pending: Box<Pending<'s>>,
    timer: PhaseTimer,
}

impl Asking<'_> {
    /// Enters the request among the open ones, and then asks: either this sees what is listed, or
    /// the next round about what is open does.
    pub(crate) async fn answer(self, record: &mut RequestRecord) -> Result<(), Rejection> {
        let Self {
            shared,
            generation,
            head,
            pending,
            mut timer,
        } = self;
        let standing = OpenStanding::with(generation, Some(pending.principal()), pending.route());
        let registration = shared
            .streams
            .enter(&record.handle, standing, generation.number, head.clone());
        record.registration = Some(registration);
        record.handle.set_asking(true);
        let answer = shared.known.ask(pending.keys()).await;
        record.handle.set_asking(false);
        let result = match pending.conclude(&answer, &mut timer) {
            Ok(permit) => {
                record.permit = Some(permit);
                keep_up(shared, generation, record, &head)
            }
            Err(Refusal { rejection, .. }) => Err(rejection),
        };
        settle(shared, generation, record, &mut timer, result)
    }
}

/// Counts a decision.
fn settle(
    shared: &Shared,
    generation: &Generation,
    record: &mut RequestRecord,
    timer: &mut PhaseTimer,
    result: Result<(), Rejection>,
) -> Result<(), Rejection> {
    record.decided_at = timer.finish();
    record.decision_took = record.decided_at - record.started;
    record.reason = result.as_ref().err().map(|rejection| rejection.reason);
    let counts = generation.counts(record.route);
    shared
        .metrics
        .decided(counts, record.reason, record.decision_took, timer.times());
    result.inspect_err(|rejection| refuse(shared, record, rejection))
}

/// Decides, as far as it goes without the store.
fn judge<'s>(
    shared: &'s Shared,
    generation: &'s Generation,
    asked: &impl Asked,
    record: &mut RequestRecord,
    now: UnixSeconds,
    timer: &mut PhaseTimer,
) -> Result<Option<Box<Pending<'s>>>, Rejection> {
    let facts = asked.facts(shared, generation, &record.raw)?;
    let known = KnownAt {
        known: &shared.known,
        at: record.started,
    };
    let pending = match decide(&generation.policy, &facts, &generation.proofs, &known, now, timer) {
        Decision::Permit(permit) => {
            record.route = Some(permit.route());
            record.permit = Some(permit);
            None
        }
        Decision::Pending(pending) => {
            record.route = Some(pending.route());
            Some(pending)
        }
        Decision::Refuse(Refusal { route, rejection }) => {
            record.route = route;
            return Err(rejection);
        }
    };
    record.forward_target = differs(facts.forward_target(), asked.sent_target());
    Ok(pending)
}

/// The request as it was sent.
impl Asked for Session {
    fn facts<'a>(
        &'a self,
        _shared: &Shared,
        generation: &Generation,
        raw: &'a [u8],
    ) -> Result<RequestFacts<'a>, Rejection> {
        let header = self.req_header();
        let facts = if self.as_http1().is_some() {
            wire_facts(header, raw, generation.config.max_header_bytes)
        } else {
            RequestFacts::judge(RawRequest {
                method: &header.method,
                target: header.raw_path(),
                authority: header.uri.authority().map(|authority| authority.as_str()),
                version: header.version,
                headers: &header.headers,
            })
        };
        let certificate = TlsConnection::of(self).and_then(TlsConnection::client);
        facts.map(|facts| facts.with_certificate(certificate.map(Arc::as_ref)))
    }

    fn sent_target(&self) -> &[u8] {
        self.req_header().raw_path()
    }

    fn head(&self, raw: &Bytes) -> RequestHead {
        let certificate = TlsConnection::of(self).and_then(TlsConnection::client).cloned();
        match self.as_http1() {
            Some(_) => RequestHead::Http1(raw.clone(), certificate),
            None => RequestHead::Http2(Box::new(self.req_header().clone()), certificate),
        }
    }
}

/// The facts of an HTTP/1 request; `raw` is its header section as it was sent.
pub(crate) fn wire_facts<'a>(
    header: &'a RequestHeader,
    raw: &'a [u8],
    max_header_bytes: usize,
) -> Result<RequestFacts<'a>, Rejection> {
    RequestFacts::judge(RawRequest {
        method: &header.method,
        target: wire_checks::check(raw, &header.headers, max_header_bytes)?.target,
        authority: None,
        version: header.version,
        headers: &header.headers,
    })
}

fn differs(judged: &[u8], sent: &[u8]) -> Option<Vec<u8>> {
    (judged != sent).then(|| judged.to_vec())
}

/// Enters a permitted request among the open ones first, and then asks again where a revocation was
/// applied since the decision began: either the decision saw it, or this does, or whoever applies
/// it finds the request and ends it.
fn enter(
    shared: &Shared,
    generation: &Generation,
    asked: &impl Asked,
    record: &mut RequestRecord,
    version: u64,
) -> Result<(), Rejection> {
    let Some(permit) = &record.permit else {
        return Ok(());
    };
    let head = asked.head(&record.raw);
    let standing = OpenStanding::of(generation, permit);
    let registration = shared
        .streams
        .enter(&record.handle, standing, generation.number, head);
    let revoked = permit
        .principal()
        .is_some_and(|principal| shared.known.version() != version && shared.known.bars(principal));
    record.registration = Some(registration);
    if revoked {
        return Err(Rejection::new(Reason::Revoked, "revoked while it was decided on"));
    }
    match shared.is_current(generation) {
        true => Ok(()),
        false => keep_up(shared, generation, record, &asked.head(&record.raw)),
    }
}

/// Judges an entered request again where another configuration was taken over since it began: either
/// whoever took it over has found the request among the open ones, or this sees the other.
fn keep_up(
    shared: &Shared,
    generation: &Generation,
    record: &RequestRecord,
    head: &RequestHead,
) -> Result<(), Rejection> {
    if shared.is_current(generation) {
        return Ok(());
    }
    let current = shared.current();
    match judge_again(shared, &current, head) {
        Verdict::Left => Ok(()),
        Verdict::Refused(rejection) => Err(rejection),
        Verdict::Permitted(standing) => {
            if let Some(registration) = &record.registration {
                registration.judged_by(current.number, &record.handle, standing);
            }
            Ok(())
        }
    }
}

fn refuse(shared: &Shared, record: &mut RequestRecord, rejection: &Rejection) {
    record.permit = None;
    record.registration = None;
    if shared.log.is_enabled() {
        record.cause = rejection.cause.as_ref().to_owned();
    }
}

/// When the times of a principal no longer hold, leeway included: that is when its streams end.
pub(crate) fn ends_at(policy: &Policy, principal: &Principal) -> UnixSeconds {
    match principal {
        Principal::User(token) => {
            let leeway = policy
                .issuers()
                .get(token.issuer())
                .map(|issuer| issuer.leeway)
                .unwrap_or_default();
            token.expires_at().plus(leeway)
        }
        Principal::Service(key) => key.expires_at().unwrap_or(UnixSeconds(i64::MAX)),
    }
}

/// So many requests of a thread have their phases timed, and then one of as many. The time of the
/// whole decision is counted for every request. To read the clock and to count after each phase
/// would cost more than most phases do.
const PHASES_OF_ONE_IN: u64 = 16;

fn times_phases() -> bool {
    thread_local! {
        static REQUESTS: Cell<u64> = const { Cell::new(0) };
    }
    let count = REQUESTS.get();
    REQUESTS.set(count.wrapping_add(1));
    count < PHASES_OF_ONE_IN || count.is_multiple_of(PHASES_OF_ONE_IN)
}

/// Times the phases of a decision.
struct PhaseTimer {
    times_phases: bool,
    last: Instant,
    phase: Option<Phase>,
    times: PhaseTimes,
}

impl PhaseTimer {
    fn since(start: Instant) -> Self {
        Self {
            times_phases: times_phases(),
            last: start,
            phase: None,
            times: PhaseTimes::default(),
        }
    }

    fn pass(&mut self, now: Instant, next: Option<Phase>) {
        let took = u64::try_from((now - self.last).as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        match self.phase {
            None => self.times.facts += took,
            Some(phase) => self.times.phases[phase as usize] += took,
        }
        self.last = now;
        self.phase = next;
    }

    /// What it has measured, where this request is one whose phases are timed.
    fn times(&self) -> Option<&PhaseTimes> {
        self.times_phases.then_some(&self.times)
    }

    fn finish(&mut self) -> Instant {
        let now = clock::now();
        if self.times_phases {
            self.pass(now, None);
        }
        now
    }
}

impl Trace for PhaseTimer {
    fn enter(&mut self, phase: Phase) {
        if self.times_phases {
            self.pass(clock::now(), Some(phase));
        }
    }

    fn step(&mut self, _make: impl FnOnce() -> Step) {}
}
