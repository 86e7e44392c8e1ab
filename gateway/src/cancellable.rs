//! The wrapper around Pingora's proxy that can end a request from outside, and that puts a deadline
//! on its header section, on the idle time before it, and on each piece of its response.
//!
//! Dropping the inner future closes both connections (on HTTP/2 it resets the stream). Such a future
//! never reaches `logging`; the request's context records it when it is dropped.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use tokio::time::{sleep, sleep_until};

use crate::checked_stream::{RequestNumber, head_is_read, reading_head_of};
use crate::clock;
use crate::deadlines::{Consequence, Deadlines, Late};
use crate::handover::Door;
use crate::http2;
use crate::idle_timer::{IdleTimer, Ring, Timer};
use crate::live_streams::{Cut, LiveStreams, RequestHandle};
use crate::websocket::{CLOSE_GRACE, Close};

thread_local! {
    /// The request whose header was read within the poll that runs on this thread.
    static BEGUN: Cell<Option<Arc<RequestHandle>>> = const { Cell::new(None) };
}

/// The handle of a request whose header has been read. To be called within the poll that read it:
/// the wrapper finds it after that.
pub(crate) fn begin_request() -> Arc<RequestHandle> {
    head_is_read();
    let handle = Arc::new(RequestHandle::default());
    BEGUN.set(Some(Arc::clone(&handle)));
    handle
}

/// Pingora's proxy, cancellable.
pub(crate) struct Cancellable<P> {
    inner: Arc<P>,
    streams: Arc<LiveStreams>,
    times: ConnectionTimes,
    server_options: HttpServerOptions,
    max_header_bytes: usize,
    door: Door,
}

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimes {
    /// From the first byte of a header section to its end.
    pub(crate) header: Duration,
    /// For the next request; as the application says if absent.
    pub(crate) keepalive: Option<Duration>,
    /// For a piece of a response to be taken; for ever if absent.
    pub(crate) send: Option<Duration>,
}

/// Has Pingora wait for a next request without a timer of its own.
const NO_TIMER: u64 = 0;

impl ConnectionTimes {
    /// To be called before a request is read. A connection that is to end is left to end.
    fn apply_to(self, session: &mut ServerSession) {
        session.set_write_timeout(self.send);
        if session.get_keepalive().is_some() && self.keepalive.is_some() {
            session.set_keepalive(Some(NO_TIMER));
        }
    }
}

impl<P> Cancellable<P> {
    /// One that speaks HTTP/1.1, and HTTP/2 where TLS agreed on it.
    pub(crate) fn new(
        inner: Arc<P>,
        streams: Arc<LiveStreams>,
        times: ConnectionTimes,
        max_header_bytes: usize,
        door: Door,
    ) -> Self {
        let mut server_options = HttpServerOptions::default();
        server_options.h2_idle_timeout = Some(times.keepalive.unwrap_or(http2::IDLE_TIMEOUT));
        Self {
            inner,
            streams,
            times,
            server_options,
            max_header_bytes,
            door,
        }
    }

    /// Whether a plain connection that begins as one of HTTP/2 is taken for that (RFC 9113 section 3.3).
    pub(crate) fn with_prior_knowledge(mut self, http2: bool) -> Self {
        self.server_options.h2c = http2;
        self
    }
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> HttpServerApp for Cancellable<P> {
    /// Written out as `async_trait` would, so that the session is not moved once more.
    fn process_new_http<'s, 'w, 'f>(
        self: &'s Arc<Self>,
        mut session: ServerSession,
        shutdown: &'w ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'f>>
    where
        's: 'f,
        'w: 'f,
        Self: 'f,
    {
        self.times.apply_to(&mut session);
        let reused = session
            .take_connection_user_context()
            .and_then(|context| context.downcast::<Reused>().ok());
        Box::pin(CancellableRequest {
            inner: self.inner.process_new_http(session, shutdown),
            handle: None,
            number: RequestNumber::next(),
            deadline: HeaderDeadline::new(self.times, reused.map(|reused| *reused)),
            timer: None,
            streams: &self.streams,
        })
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(http2::options(self.max_header_bytes))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.server_options)
    }

    /// No connection is accepted any more. This ends those that wait for a request; each that is served
    /// before says that it is its connection's last.
    async fn http_cleanup(&self) {
        self.door.closed().await;
        self.inner.http_cleanup().await;
    }
}

/// One request, from the idle connection before it to its end.
struct CancellableRequest<'f> {
    inner: Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'f>>,
    /// Nothing until its header is read.
    handle: Option<Arc<RequestHandle>>,
    number: RequestNumber,
    deadline: HeaderDeadline,
    /// Set to the next of the request's deadlines, where it has any.
    timer: Option<Timer>,
    streams: &'f LiveStreams,
}

impl Future for CancellableRequest<'_> {
    type Output = Option<ReusedHttpStream>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Whoever cut it has said so already: nothing that came since may pass.
        if this
            .handle
            .as_ref()
            .is_some_and(|handle| handle.is_bound() && handle.cut().is_some())
        {
            this.say_why();
            return Poll::Ready(None);
        }
        if let Some(handle) = &this.handle {
            take_leave(handle);
        }
        let polled = match this.handle {
            Some(_) => this.inner.as_mut().poll(context),
            None => this.poll_for_handle(context),
        };
        if polled.is_ready() {
            return polled;
        }
        let ended = match this.handle {
            Some(_) => this.poll_cut(context).map(|_| this.say_why()),
            None => this.deadline.poll(context).map(|no_header| match no_header {
                NoHeader::Idle => {}
                NoHeader::Late => this.streams.count(Cut::HeaderTimeout),
            }),
        };
        ended.map(|()| None)
    }
}

impl CancellableRequest<'_> {
    /// A poll that may read the header.
    fn poll_for_handle(&mut self, context: &mut Context<'_>) -> Poll<Option<ReusedHttpStream>> {
        // A poll that panicked may have left one.
        drop(BEGUN.take());
        reading_head_of(self.number);
        let polled = self.inner.as_mut().poll(context);
        head_is_read();
        self.handle = BEGUN.take();
        if let Some(handle) = &self.handle
            && let Some(timer) = self.deadline.take_idle_timer()
        {
            handle.keep_idle_timer(timer);
        }
        polled
    }

    /// Whether a request that is not done has been ended. The waker is registered before the look, so
    /// that whoever ends the request after it wakes this task.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        let Some(handle) = &self.handle else {
            return Poll::Pending;
        };
        if handle.is_bound() {
            handle.wake_on_cut(context.waker());
            if let Some(cut) = handle.cut() {
                return Poll::Ready(cut);
            }
            if handle.is_left()
                && let Some(websocket) = handle.websocket()
            {
                if take_leave(handle) {
                    // It became one in this poll, or was left meanwhile: its task has to look again.
                    context.waker().wake_by_ref();
                } else if websocket.is_over() {
                    self.streams.end(handle, Cut::Shutdown);
                    return Poll::Ready(Cut::Shutdown);
                }
            }
        }
        if handle.deadlines().any() {
            let handle = Arc::clone(handle);
            return self.poll_deadlines(&handle, context);
        }
        Poll::Pending
    }

    /// Has a WebSocket that was cut say why, when its connection is dropped after this.
    fn say_why(&self) {
        if let Some(handle) = &self.handle
            && let (Some(websocket), Some(cut)) = (handle.websocket(), handle.cut())
        {
            websocket.is_cut(cut);
        }
    }

    fn poll_deadlines(&mut self, handle: &RequestHandle, context: &mut Context<'_>) -> Poll<Cut> {
        match poll_late(&mut self.timer, handle.deadlines(), context) {
            Poll::Ready(late) => {
                let cut = match late {
                    Late::FirstByte => Cut::FirstByteTimeout,
                    Late::Total => Cut::TotalTimeout,
                    Late::Body => Cut::BodyTimeout,
                    Late::Goodbye => Cut::Shutdown,
                };
                self.streams.end(handle, cut);
                Poll::Ready(cut)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Has a WebSocket that the gateway leaves say so to both sides; whether that was not said before.
fn take_leave(handle: &RequestHandle) -> bool {
    let Some(websocket) = handle.websocket().filter(|_| handle.is_left()) else {
        return false;
    };
    let begins = websocket.say_goodbye(Close::GOING_AWAY);
    if begins {
        handle.deadlines().set_goodbye(clock::now() + CLOSE_GRACE);
    }
    begins
}

/// Waits for the next of the deadlines, and yields the one that the request has to be ended for.
fn poll_late(timer: &mut Option<Timer>, deadlines: &Deadlines, context: &mut Context<'_>) -> Poll<Late> {
    while let Some((at, late)) = deadlines.next() {
        let at = tokio::time::Instant::from_std(at);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        match deadlines.pass(late) {
            Consequence::End(late) => return Poll::Ready(late),
            // It notices when it is polled again.
            Consequence::Fails => context.waker().wake_by_ref(),
        }
    }
    Poll::Pending
}

/// What a connection that will be used again carries to its next request, which is how that request
/// knows.
#[derive(Default)]
pub(crate) struct Reused {
    /// The timer of its idle times.
    pub(crate) idle: Option<Timer>,
}

/// How long after it began to wait a connection may be woken for reasons of the request before.
const AFTERMATH: Duration = Duration::from_millis(100);

/// Why a connection is ended that has not sent a whole header section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoHeader {
    /// Nothing of one came.
    Idle,
    /// It began, and did not end in time.
    Late,
}

/// The deadline of a header section, and of the idle time before it.
///
/// On a new connection it starts at once. On one that was used before, it starts with the first byte:
/// the first poll finds an idle connection, and what wakes the task later is a piece of a header. A
/// header that arrives in one piece then never arms a timer. Channels and timers of the request before
/// may still wake the task right after it, which says nothing, and so may the idle timer.
struct HeaderDeadline {
    timeout: Duration,
    /// On a connection that was used before: that it is idle, and for how long it may be.
    reused: Option<Idle>,
    timer: Option<Timer>,
}

struct Idle {
    since: Option<Instant>,
    /// Where the application does not see to it.
    timer: Option<IdleTimer>,
}

impl HeaderDeadline {
    fn new(times: ConnectionTimes, reused: Option<Reused>) -> Self {
        Self {
            timeout: times.header,
            reused: reused.map(|reused| Idle {
                since: None,
                timer: times.keepalive.map(|limit| IdleTimer::new(limit, reused.idle)),
            }),
            timer: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<NoHeader> {
        if self.timer.is_none()
            && let Some(idle) = &mut self.reused
        {
            match idle.poll(context) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        timer.as_mut().poll(context).map(|()| NoHeader::Late)
    }

    /// The timer of the idle time, when that is over.
    fn take_idle_timer(&mut self) -> Option<Timer> {
        self.reused.take()?.timer?.into_timer()
    }
}

impl Idle {
    /// Pending while the connection is idle; ready when something came, or when it ends because
    /// nothing did.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<NoHeader>> {
        let begins = self.since.is_none();
        // The end of the request before was hardly earlier.
        let since = *self.since.get_or_insert_with(clock::latest);
        if let Some(timer) = &mut self.timer {
            if begins {
                timer.begin(since);
            }
            match timer.poll(context) {
                Poll::Ready(Ring::Over) => return Poll::Ready(Some(NoHeader::Idle)),
                Poll::Ready(Ring::Early) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        if begins || clock::now() - since < AFTERMATH {
            return Poll::Pending;
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: ConnectionTimes = ConnectionTimes {
        header: Duration::from_millis(50),
        keepalive: Some(Duration::from_millis(400)),
        send: None,
    };

    fn is_over(deadline: &mut HeaderDeadline) -> bool {
        let waker = futures_util::task::noop_waker();
        match deadline.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(end) => {
                assert_eq!(end, NoHeader::Late);
                true
            }
            Poll::Pending => false,
        }
    }

    #[tokio::test]
    async fn on_a_used_connection_the_deadline_starts_with_the_first_byte() {
        let mut deadline = HeaderDeadline::new(TIMES, Some(Reused::default()));
        assert!(!is_over(&mut deadline));
        assert!(!is_over(&mut deadline), "an aftermath of the request before");
        sleep(Duration::from_millis(200)).await;
        assert!(!is_over(&mut deadline), "the connection was idle until now");
        sleep(Duration::from_millis(20)).await;
        assert!(!is_over(&mut deadline));
        sleep(Duration::from_millis(40)).await;
        assert!(is_over(&mut deadline), "a trickle does not push it away");
    }

    #[tokio::test]
    async fn on_a_new_connection_the_deadline_starts_at_once() {
        let mut deadline = HeaderDeadline::new(TIMES, None);
        assert!(!is_over(&mut deadline));
        sleep(Duration::from_millis(60)).await;
        assert!(is_over(&mut deadline));
    }

    #[tokio::test]
    async fn a_connection_that_nothing_comes_on_ends_without_a_header() {
        let mut deadline = HeaderDeadline::new(TIMES, Some(Reused::default()));
        let waker = futures_util::task::noop_waker();
        let mut context = Context::from_waker(&waker);
        assert!(deadline.poll(&mut context).is_pending());
        sleep(Duration::from_millis(450)).await;
        assert_eq!(deadline.poll(&mut context), Poll::Ready(NoHeader::Idle));
    }
}
