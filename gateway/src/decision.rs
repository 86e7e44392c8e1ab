//! From Pingora's header to the decision. All rules are `durward_policy::decide`'s.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use durward_contract::UnixSeconds;
use durward_policy::{
    Decision, GrantStanding, GrantedKey, KeyDigest, LookupAnswer, LookupKeys, Pending, Permit, Phase, Policy,
    Preflight, Principal, RawRequest, Reason, Refusal, Rejection, RequestFacts, Revocations, RouteId, Routed,
    Standing, Step, Trace, VerifiedToken,
};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::clock;
use crate::failure_limit::LimitedProofs;
use crate::generation::Generation;
use crate::judged_again::{RequestHead, Standing as OpenStanding, Verdict, judge_again};
use crate::listener_tls::TlsConnection;
use crate::lookup::Lookups;
use crate::metrics::PhaseTimes;
use crate::proxy::Shared;
use crate::quota_table::ClientKey;
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

/// A request after its decision, or before a store was asked.
pub(crate) enum Admission<'s> {
    /// It is decided; a rejection is for the caller to answer with.
    Decided(Result<(), Rejection>),
    /// In lookup mode, and where gateways count its route's requests together: asks, and decides.
    /// Boxed, so that the requests that ask nobody do not carry its room.
    Asking(Pin<Box<dyn Future<Output = Result<(), Rejection>> + Send + 's>>),
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
    asked: &'s (impl Asked + Sync),
    record: &'s mut RequestRecord,
) -> Admission<'s> {
    let mut began = Beginning::of(shared, record);
    if generation.policy.limits_on_arrival() && generation.rate_limits.has_store() {
        return Admission::Asking(Box::pin(admit_together(shared, generation, asked, record, began)));
    }
    let judged = judge(shared, generation, asked, record, &mut began);
    match proceed(shared, generation, asked, record, began, judged) {
        Proceeded::Decided(result) => Admission::Decided(result),
        Proceeded::Asks(asking) => Admission::Asking(Box::pin(asking.answer(record))),
    }
}

/// [`admit`], where what arrives may be counted together with other gateways.
async fn admit_together(
    shared: &Shared,
    generation: &Generation,
    asked: &(impl Asked + Sync),
    record: &mut RequestRecord,
    mut began: Beginning,
) -> Result<(), Rejection> {
    let judged = judge_together(shared, generation, asked, record, &mut began).await;
    match proceed(shared, generation, asked, record, began, judged) {
        Proceeded::Decided(result) => result,
        Proceeded::Asks(asking) => asking.answer(record).await,
    }
}

/// When a decision began, and as of which version of what is known.
struct Beginning {
    timer: PhaseTimer,
    now: UnixSeconds,
    version: u64,
}

impl Beginning {
    fn of(shared: &Shared, record: &mut RequestRecord) -> Self {
        let timer = PhaseTimer::since(record.started);
        record.wall = clock::wall_at(record.started);
        Self {
            timer,
            now: clock::unix_seconds(record.wall),
            version: shared.known.version(),
        }
    }
}

/// How far a request got without asking a store.
enum Proceeded<'s> {
    Decided(Result<(), Rejection>),
    Asks(Box<Asking<'s>>),
}

/// Goes on with a request that was judged, up to its end or to what a store is to be asked.
fn proceed<'s>(
    shared: &'s Shared,
    generation: &'s Generation,
    asked: &impl Asked,
    record: &mut RequestRecord,
    began: Beginning,
    judged: Result<Option<Box<Pending<'s>>>, Rejection>,
) -> Proceeded<'s> {
    let Beginning {
        mut timer, version, ..
    } = began;
    let result = match judged {
        Ok(pending) => {
            let question = match pending {
                Some(pending) => Some(Question::Revoked(pending)),
                None if is_counted_together(generation, record) => Some(Question::Counting { version }),
                None => None,
            };
            if let Some(question) = question {
                return Proceeded::Asks(Box::new(Asking {
                    shared,
                    generation,
                    head: asked.head(&record.raw),
                    question,
                    timer,
                }));
            }
            count(generation, record)
                .and_then(|()| enter(shared, generation, |raw| asked.head(raw), record, version))
        }
        Err(rejection) => Err(rejection),
    };
    Proceeded::Decided(settle(shared, generation, record, &mut timer, result))
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

/// What a store is asked.
enum Question<'s> {
    /// Whether the credential is revoked.
    Revoked(Box<Pending<'s>>),
    /// Whether it is one request too many. It is permitted, as of this version of what is known.
    Counting { version: u64 },
}

/// A request that waits for a store's answer.
struct Asking<'s> {
    shared: &'s Shared,
    generation: &'s Generation,
    head: RequestHead,
    question: Question<'s>,
    timer: PhaseTimer,
}

impl Asking<'_> {
    /// Asks, and decides.
    async fn answer(self, record: &mut RequestRecord) -> Result<(), Rejection> {
        let Self {
            shared,
            generation,
            head,
            question,
            mut timer,
        } = self;
        let result = match question {
            Question::Revoked(pending) => {
                look_up(shared, generation, *pending, &head, &mut timer, record).await
            }
            Question::Counting { version } => match count_together(generation, record).await {
                Ok(()) => enter(shared, generation, |_| head.clone(), record, version),
                Err(rejection) => Err(rejection),
            },
        };
        settle(shared, generation, record, &mut timer, result)
    }
}

/// Enters the request among the open ones, and then asks: either this sees what is listed, or the next
/// round about what is open does.
async fn look_up(
    shared: &Shared,
    generation: &Generation,
    pending: Pending<'_>,
    head: &RequestHead,
    timer: &mut PhaseTimer,
    record: &mut RequestRecord,
) -> Result<(), Rejection> {
    let standing = OpenStanding::with(generation, Some(pending.principal()), pending.route());
    let registration = shared
        .streams
        .enter(&record.handle, standing, generation.number, head.clone());
    record.registration = Some(registration);
    record.handle.begin_to_ask();
    let answer = shared.known.ask(pending.keys()).await;
    let learnt = record.handle.has_asked();
    match pending.conclude(learnt.unwrap_or(&answer), timer) {
        Ok(permit) => record.permit = Some(permit),
        Err(Refusal { rejection, .. }) => return Err(rejection),
    }
    match is_counted_together(generation, record) {
        true => count_together(generation, record).await?,
        false => count(generation, record)?,
    }
    keep_up(shared, generation, record, head)
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

/// Finds the route, counts what has arrived for it, and decides, as far as that goes without a store.
fn judge<'s>(
    shared: &'s Shared,
    generation: &'s Generation,
    asked: &(impl Asked + Sync),
    record: &mut RequestRecord,
    began: &mut Beginning,
) -> Result<Option<Box<Pending<'s>>>, Rejection> {
    let client = record.counted_client();
    let facts = asked.facts(shared, generation, &record.raw)?;
    let routed = find_route(generation, &facts, &mut record.route, began)?;
    if let (true, Some(client)) = (generation.policy.limits_on_arrival(), client) {
        generation
            .rate_limits
            .on_arrival(routed.route(), client, record.started, &mut record.standings)?;
    }
    let proofs = limited_proofs(generation, client, record.started);
    let pending = conclude(shared, &routed, proofs, record.started, began, &mut record.permit)?;
    record.forward_target = differs(facts.forward_target(), asked.sent_target());
    Ok(pending)
}

/// [`judge`], where the store of shared rate limits may have to be asked for what has arrived.
async fn judge_together<'s>(
    shared: &'s Shared,
    generation: &'s Generation,
    asked: &(impl Asked + Sync),
    record: &mut RequestRecord,
    began: &mut Beginning,
) -> Result<Option<Box<Pending<'s>>>, Rejection> {
    let client = record.counted_client();
    let facts = asked.facts(shared, generation, &record.raw)?;
    let routed = find_route(generation, &facts, &mut record.route, began)?;
    if let Some(address) = record.client {
        generation
            .rate_limits
            .on_arrival_together(routed.route(), address, record.started, &mut record.standings)
            .await?;
    }
    let proofs = limited_proofs(generation, client, record.started);
    let pending = conclude(shared, &routed, proofs, record.started, began, &mut record.permit)?;
    record.forward_target = differs(facts.forward_target(), asked.sent_target());
    Ok(pending)
}

fn find_route<'p, 'r>(
    generation: &'p Generation,
    facts: &'r RequestFacts<'_>,
    route: &mut Option<RouteId>,
    began: &mut Beginning,
) -> Result<Routed<'p, 'r>, Rejection> {
    match Routed::find(&generation.policy, facts, &mut began.timer) {
        Ok(routed) => {
            *route = Some(routed.route().id);
            Ok(routed)
        }
        Err(Refusal { rejection, .. }) => Err(rejection),
    }
}

/// What proves tokens, within the limit on failures of whoever asks.
fn limited_proofs(generation: &Generation, client: Option<ClientKey>, started: Instant) -> LimitedProofs<'_> {
    let failures = generation.failures.as_ref();
    LimitedProofs {
        proofs: &generation.proofs,
        failures: failures.and_then(|limit| Some(limit.of(client?, started))),
    }
}

/// Decides on a request that has been counted; its permit goes to `permit`.
fn conclude<'s>(
    shared: &Shared,
    routed: &Routed<'s, '_>,
    proofs: LimitedProofs<'_>,
    started: Instant,
    began: &mut Beginning,
    permit: &mut Option<Permit>,
) -> Result<Option<Box<Pending<'s>>>, Rejection> {
    let known = KnownAt {
        known: &shared.known,
        at: started,
    };
    match routed.decide(&proofs, &known, began.now, &mut began.timer) {
        Decision::Permit(permitted) => {
            *permit = Some(permitted);
            Ok(None)
        }
        Decision::Pending(pending) => Ok(Some(pending)),
        Decision::Refuse(Refusal { rejection, .. }) => Err(match proofs.failures {
            Some(failures) => failures.count(rejection),
            None => rejection,
        }),
    }
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
    head: impl Fn(&Bytes) -> RequestHead,
    record: &mut RequestRecord,
    version: u64,
) -> Result<(), Rejection> {
    let Some(permit) = &record.permit else {
        return Ok(());
    };
    let standing = OpenStanding::of(generation, permit);
    let registration = shared
        .streams
        .enter(&record.handle, standing, generation.number, head(&record.raw));
    let revoked = permit
        .principal()
        .is_some_and(|principal| shared.known.version() != version && shared.known.bars(principal));
    record.registration = Some(registration);
    if revoked {
        return Err(Rejection::new(Reason::Revoked, "revoked while it was decided on"));
    }
    match shared.is_current(generation) {
        true => Ok(()),
        false => keep_up(shared, generation, record, &head(&record.raw)),
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

/// Whether a permitted request is one that gateways count together.
fn is_counted_together(generation: &Generation, record: &RequestRecord) -> bool {
    if !generation.rate_limits.has_store() || record.counted_client().is_none() {
        return false;
    }
    let permit = record.permit.as_ref();
    let route = permit.and_then(|permit| generation.policy.route(permit.route()));
    route.is_some_and(|route| generation.rate_limits.are_shared(&route.rate_limits.on_permit))
}

async fn count_together(generation: &Generation, record: &mut RequestRecord) -> Result<(), Rejection> {
    let Some(permit) = &record.permit else {
        return Ok(());
    };
    let (policy, limits) = (&generation.policy, &generation.rate_limits);
    limits
        .on_permit_together(policy, permit, record.started, &mut record.standings)
        .await
}

/// Counts a request that is permitted.
fn count(generation: &Generation, record: &mut RequestRecord) -> Result<(), Rejection> {
    let (policy, limits) = (&generation.policy, &generation.rate_limits);
    if policy.rate_limits().is_empty() {
        return Ok(());
    }
    match (&record.permit, record.counted_client()) {
        (Some(permit), Some(_)) => limits.on_permit(policy, permit, record.started, &mut record.standings),
        _ => Ok(()),
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
