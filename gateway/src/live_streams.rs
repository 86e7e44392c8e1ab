//! The permitted requests that are open, and how they are ended.
//!
//! Every one of them is here, those of public routes too, which a change of the configuration may end,
//! from the decision to its last byte, so that no long response, upload, event stream or WebSocket
//! outlives its credential. Coming and going is a slot in this thread's
//! slab under a lock that nobody else asks for; the rare ban looks through them all.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use durward_contract::UnixSeconds;
use durward_policy::{Cause, LookupAnswer, Principal, RouteId};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use slab::Slab;

use crate::deadlines::Deadlines;
use crate::idle_timer::Timer;
use crate::judged_again::{RequestHead, Standing, Verdict};
use crate::sharded::{Counters, Padded, SHARDS, shard};
use crate::websocket::WebSocket;

/// Why an open request was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// What it was permitted by was revoked.
    Revoked(Cause),
    /// Whether it is revoked could not be learnt for too long.
    Unknown,
    /// The time of its token or key has passed.
    Expired,
    /// Its header section did not arrive in time.
    HeaderTimeout,
    /// Its response did not end in time.
    TotalTimeout,
    /// Its response did not begin in time, on a connection that others share.
    FirstByteTimeout,
    /// Its body did not arrive in time.
    BodyTimeout,
    /// The configuration changed, and no longer permits it.
    PolicyChanged,
    /// Its issuer's keys changed, and none of them proves its token, or there are none.
    KeyWithdrawn,
    /// Its client did not take a piece of the response in time.
    SendTimeout,
    /// The gateway ends, and its grace is over; or it is a WebSocket, and was told.
    Shutdown,
}

impl Cut {
    pub(crate) const ALL: [Self; 18] = [
        Self::Revoked(Cause::Token),
        Self::Revoked(Cause::Session),
        Self::Revoked(Cause::User),
        Self::Revoked(Cause::Client),
        Self::Revoked(Cause::SigningKey),
        Self::Revoked(Cause::ApiKey),
        Self::Revoked(Cause::Everyone),
        Self::Revoked(Cause::Listed),
        Self::Unknown,
        Self::Expired,
        Self::HeaderTimeout,
        Self::TotalTimeout,
        Self::FirstByteTimeout,
        Self::BodyTimeout,
        Self::PolicyChanged,
        Self::KeyWithdrawn,
        Self::SendTimeout,
        Self::Shutdown,
    ];

    /// The word for it in metrics and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Revoked(cause) => cause.name(),
            Self::Unknown => "revocation_unknown",
            Self::Expired => "expired",
            Self::HeaderTimeout => "header_timeout",
            Self::TotalTimeout => "upstream_total_timeout",
            Self::FirstByteTimeout => "upstream_first_byte_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::PolicyChanged => "policy_changed",
            Self::KeyWithdrawn => "key_withdrawn",
            Self::SendTimeout => "send_timeout",
            Self::Shutdown => "shutdown",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|cut| *cut == self).unwrap_or_default()
    }
}

/// What a running request and whoever may end it share.
#[derive(Debug, Default)]
pub(crate) struct RequestHandle {
    bound: AtomicBool,
    asking: AtomicBool,
    /// 0, or one more than the index of the cut.
    cut: AtomicU8,
    waker: AtomicWaker,
    deadlines: Deadlines,
    websocket: OnceLock<Arc<WebSocket>>,
    leaving: AtomicBool,
    /// What was learnt of its credential while it was asking itself.
    told: OnceLock<Box<LookupAnswer>>,
    /// The timer of its connection's idle times, until it is over.
    idle_timer: Mutex<Option<Timer>>,
}

impl RequestHandle {
    /// Whether somebody else may end the request.
    pub(crate) fn is_bound(&self) -> bool {
        self.bound.load(Ordering::Relaxed)
    }

    /// By when it must have got somewhere.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Whether it is entered but not permitted yet: it waits for the revocation store.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking.load(Ordering::SeqCst)
    }

    /// An entered request begins to wait for the revocation store.
    pub(crate) fn begin_to_ask(&self) {
        self.asking.store(true, Ordering::SeqCst);
    }

    /// It waits no longer. Yields what somebody else has learnt of its credential meanwhile.
    pub(crate) fn has_asked(&self) -> Option<&LookupAnswer> {
        self.asking.store(false, Ordering::SeqCst);
        self.told.get().map(Box::as_ref)
    }

    /// Tells a request that waits for the revocation store what that has answered somebody else; `false`
    /// where it does not wait (any more).
    pub(crate) fn tell_answer(&self, answer: LookupAnswer) -> bool {
        if !self.is_asking() {
            return false;
        }
        let _ = self.told.set(Box::new(answer));
        // Where it has stopped to wait meanwhile it may not have seen it.
        self.is_asking()
    }

    /// What it has become, where that is a WebSocket.
    pub(crate) fn websocket(&self) -> Option<&Arc<WebSocket>> {
        self.websocket.get()
    }

    /// It becomes a WebSocket.
    pub(crate) fn is_websocket(&self, websocket: Arc<WebSocket>) {
        let _ = self.websocket.set(websocket);
    }

    /// Whether the gateway leaves it, so that it has to be told if it is, or becomes, a WebSocket.
    pub(crate) fn is_left(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Keeps the timer of its connection's idle times for the request after it.
    pub(crate) fn keep_idle_timer(&self, timer: Timer) {
        *self.idle_timer.lock() = Some(timer);
    }

    /// The timer that was kept.
    pub(crate) fn take_idle_timer(&self) -> Option<Timer> {
        self.idle_timer.lock().take()
    }

    fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whom to wake when it is ended or left. To be followed by a look at [`Self::cut`] and
    /// [`Self::is_left`].
    pub(crate) fn wake_on_cut(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether and why it has been ended.
    pub(crate) fn cut(&self) -> Option<Cut> {
        match self.cut.load(Ordering::SeqCst) {
            0 => None,
            code => Cut::ALL.get(usize::from(code) - 1).copied(),
        }
    }

    /// Ends it; `false` where it has been ended before.
    pub(crate) fn end(&self, cut: Cut) -> bool {
        let code = u8::try_from(cut.index() + 1).unwrap_or(u8::MAX);
        let first = self
            .cut
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        self.waker.wake();
        first
    }
}

#[derive(Debug)]
struct Live {
    handle: Arc<RequestHandle>,
    standing: Standing,
    /// The number of the generation that it is forwarded by.
    begun_by: u64,
    /// The number of the generation that it was last judged by, of which the route is.
    judged_by: u64,
    head: RequestHead,
}

impl Live {
    fn principal(&self) -> Option<&Principal> {
        self.standing.principal.as_ref()
    }
}

/// Which of the open requests are judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that another generation has judged last.
    JudgedByOthers,
    /// Those that a user proved to be theirs.
    OfUsers,
}

impl Which {
    fn has(self, live: &Live, generation: u64) -> bool {
        match self {
            Self::JudgedByOthers => live.judged_by != generation,
            Self::OfUsers => live
                .principal()
                .is_some_and(|principal| principal.user().is_some()),
        }
    }
}

/// What came of judging open requests again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JudgedAgain {
    pub(crate) kept: usize,
    pub(crate) ended: usize,
}

/// The open permitted requests.
#[derive(Debug)]
pub(crate) struct LiveStreams {
    shards: [Padded<Mutex<Slab<Live>>>; SHARDS],
    cuts: Counters,
    /// Whether the gateway leaves all of them.
    leaving: AtomicBool,
}

impl Default for LiveStreams {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Padded::default()),
            cuts: Counters::new(Cut::ALL.len()),
            leaving: AtomicBool::new(false),
        }
    }
}

/// A request's place among the open ones; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    streams: Arc<LiveStreams>,
    shard: usize,
    key: usize,
}

impl Registration {
    /// The request was judged again, by the generation of this number.
    pub(crate) fn judged_by(&self, generation: u64, handle: &Arc<RequestHandle>, standing: Standing) {
        let mut shard = self.streams.shards[self.shard].0.lock();
        move_to(&mut shard, self.key, handle, standing, generation);
    }
}

/// Notes what an open request is under another generation; nothing where it has ended meanwhile.
fn move_to(
    shard: &mut Slab<Live>,
    key: usize,
    handle: &Arc<RequestHandle>,
    standing: Standing,
    generation: u64,
) {
    if let Some(live) = shard.get_mut(key)
        && Arc::ptr_eq(&live.handle, handle)
    {
        live.standing = standing;
        live.judged_by = generation;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.streams.shards[self.shard].0.lock().try_remove(self.key);
    }
}

impl LiveStreams {
    /// Enters a request of a user's on a route, for tests that have no header.
    #[cfg(test)]
    pub(crate) fn register(
        self: &Arc<Self>,
        handle: &Arc<RequestHandle>,
        principal: &Principal,
        route: RouteId,
        ends_at: UnixSeconds,
    ) -> Registration {
        let standing = Standing {
            principal: Some(principal.clone()),
            route,
            ends_at,
        };
        self.enter(handle, standing, 1, RequestHead::Answered)
    }

    /// Enters a request that was permitted by the generation of this number.
    pub(crate) fn enter(
        self: &Arc<Self>,
        handle: &Arc<RequestHandle>,
        standing: Standing,
        generation: u64,
        head: RequestHead,
    ) -> Registration {
        handle.bound.store(true, Ordering::Relaxed);
        let shard = shard();
        let live = Live {
            handle: Arc::clone(handle),
            standing,
            begun_by: generation,
            judged_by: generation,
            head,
        };
        let key = self.shards[shard].0.lock().insert(live);
        // Whoever leaves says so before looking through them.
        if self.leaving.load(Ordering::SeqCst) {
            handle.leave();
        }
        Registration {
            streams: Arc::clone(self),
            shard,
            key,
        }
    }

    /// How many there are that somebody proved to be theirs.
    pub(crate) fn len(&self) -> usize {
        let of_shard = |shard: &Padded<Mutex<Slab<Live>>>| {
            let shard = shard.0.lock();
            shard
                .iter()
                .filter(|(_, live)| live.principal().is_some())
                .count()
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Ends every request whose principal `judge` condemns.
    pub(crate) fn end_where(&self, judge: impl Fn(&Principal) -> Option<Cause>) {
        self.end_each(|live| judge(live.principal()?).map(Cut::Revoked));
    }

    /// Ends every request whose token's or key's time has passed at `now`.
    pub(crate) fn end_expired(&self, now: UnixSeconds) {
        self.end_each(|live| (live.standing.ends_at <= now).then_some(Cut::Expired));
    }

    /// Ends every request with a credential but those on routes, of the generation of this number, that
    /// bear what is unknown now.
    pub(crate) fn end_unknown(&self, generation: u64, bears: impl Fn(RouteId) -> bool) {
        self.end_each(|live| {
            live.principal()?;
            // One that this generation could not judge, since nobody could vouch for it, is on a route
            // that does not bear that.
            let borne = live.judged_by == generation && bears(live.standing.route);
            (!borne).then_some(Cut::Unknown)
        });
    }

    /// Ends every request that is forwarded by the generation of this number.
    pub(crate) fn end_generation(&self, number: u64) {
        self.end_each(|live| (live.begun_by == number).then_some(Cut::PolicyChanged));
    }

    /// Judges requests again by the generation of this number, and ends those that are refused.
    pub(crate) fn judge_again(
        &self,
        generation: u64,
        which: Which,
        cut: Cut,
        judge: impl Fn(&RequestHead) -> Verdict,
    ) -> JudgedAgain {
        let mut judged = JudgedAgain::default();
        for shard in &self.shards {
            // Judged without the lock: to prove a token takes longer than anybody should wait for it.
            let open: Vec<_> = {
                let shard = shard.0.lock();
                shard
                    .iter()
                    .filter(|(_, live)| which.has(live, generation) && !live.handle.is_asking())
                    .map(|(key, live)| (key, Arc::clone(&live.handle), live.head.clone()))
                    .collect()
            };
            for (key, handle, head) in open {
                match judge(&head) {
                    Verdict::Permitted(standing) => {
                        move_to(&mut shard.0.lock(), key, &handle, standing, generation);
                        judged.kept += 1;
                    }
                    Verdict::Left => judged.kept += 1,
                    Verdict::Refused(rejection) => {
                        tracing::debug!(
                            reason = rejection.reason.code(),
                            "an open request is no longer permitted"
                        );
                        self.end(&handle, cut);
                        judged.ended += 1;
                    }
                }
            }
        }
        judged
    }

    /// The gateway leaves every request, those too that come yet: WebSockets are told, the others have
    /// the time that the drain has.
    pub(crate) fn leave_all(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            let shard = shard.0.lock();
            shard.iter().for_each(|(_, live)| live.handle.leave());
        }
    }

    /// Ends every request.
    pub(crate) fn end_all(&self, cut: Cut) {
        self.end_each(|_| Some(cut));
    }

    /// Each of them that has a principal, with whose it is.
    pub(crate) fn open(&self) -> Vec<(Arc<RequestHandle>, Principal)> {
        let mut open = Vec::new();
        for shard in &self.shards {
            let shard = shard.0.lock();
            let pair = |(_, live): (usize, &Live)| {
                let principal = live.principal()?.clone();
                Some((Arc::clone(&live.handle), principal))
            };
            open.extend(shard.iter().filter_map(pair));
        }
        open
    }

    /// Ends one of them.
    pub(crate) fn end(&self, handle: &RequestHandle, cut: Cut) {
        if handle.end(cut) {
            self.count(cut);
        }
    }

    /// Counts an ended request.
    pub(crate) fn count(&self, cut: Cut) {
        self.cuts.add(cut.index(), 1);
    }

    /// How many were ended, by cause.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (Cut, u64)> {
        Cut::ALL.into_iter().map(|cut| (cut, self.cuts.get(cut.index())))
    }

    fn end_each(&self, judge: impl Fn(&Live) -> Option<Cut>) {
        for shard in &self.shards {
            // Woken after the lock is released: a woken task may want it at once.
            let condemned: Vec<_> = {
                let shard = shard.0.lock();
                let condemn = |live: &Live| Some((Arc::clone(&live.handle), judge(live)?));
                shard.iter().filter_map(|(_, live)| condemn(live)).collect()
            };
            for (handle, cut) in condemned {
                self.end(&handle, cut);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::testing::user;

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_condemned_are_woken_once_and_the_others_stay() {
        let streams = Arc::new(LiveStreams::default());
        let (alice, bob) = (user("alice"), user("bob"));
        let handles: Vec<_> = (0..4).map(|_| Arc::new(RequestHandle::default())).collect();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let registrations: Vec<_> = handles
            .iter()
            .zip([&alice, &bob, &alice, &bob])
            .map(|(handle, user)| streams.register(handle, user, RouteId(0), UnixSeconds(100)))
            .collect();
        handles[0].wake_on_cut(&Waker::from(Arc::clone(&woken)));
        assert_eq!(streams.len(), 4);

        let is_alice = |principal: &Principal| {
            let token = principal.user()?;
            (token.subject() == "alice").then_some(Cause::User)
        };
        streams.end_where(is_alice);
        streams.end_where(is_alice);
        let cuts: Vec<_> = handles.iter().map(|handle| handle.cut()).collect();
        let user = Some(Cut::Revoked(Cause::User));
        assert_eq!(cuts, [user, None, user, None]);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(
            streams
                .cuts()
                .any(|count| count == (Cut::Revoked(Cause::User), 2))
        );

        drop(registrations);
        assert_eq!(streams.len(), 0);
    }

    #[test]
    fn what_is_unknown_ends_the_requests_of_routes_that_do_not_bear_it() {
        let streams = Arc::new(LiveStreams::default());
        let handles: Vec<_> = (0..2).map(|_| Arc::new(RequestHandle::default())).collect();
        let never = UnixSeconds(i64::MAX);
        let _strict = streams.register(&handles[0], &user("alice"), RouteId(0), never);
        let _lax = streams.register(&handles[1], &user("alice"), RouteId(1), never);
        streams.end_unknown(1, |route| route == RouteId(1));
        assert_eq!(handles[0].cut(), Some(Cut::Unknown));
        assert_eq!(handles[1].cut(), None);
    }

    #[test]
    fn the_expired_are_ended_and_only_they() {
        let streams = Arc::new(LiveStreams::default());
        let handles: Vec<_> = (0..2).map(|_| Arc::new(RequestHandle::default())).collect();
        let _first = streams.register(&handles[0], &user("alice"), RouteId(0), UnixSeconds(100));
        let _second = streams.register(&handles[1], &user("alice"), RouteId(0), UnixSeconds(101));
        streams.end_expired(UnixSeconds(99));
        assert_eq!(handles[0].cut(), None);
        streams.end_expired(UnixSeconds(100));
        assert_eq!(handles[0].cut(), Some(Cut::Expired));
        assert_eq!(handles[1].cut(), None);
    }
}
