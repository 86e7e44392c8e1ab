//! The wrapper around Pingora's proxy that can end a request from outside, and that puts a deadline
//! on its header section.
//!
//! Dropping the inner future closes both connections (on HTTP/2 it resets the stream). Such a future
//! never reaches `logging`; the request's context records it when it is dropped.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use tokio::time::{Sleep, sleep};

use crate::live_streams::{Cut, LiveStreams, RequestHandle};

tokio::task_local! {
    static CURRENT: Arc<RequestHandle>;
}

/// The handle of the request that is being handled.
pub(crate) fn current_request() -> Arc<RequestHandle> {
    CURRENT.try_with(Arc::clone).unwrap_or_default()
}

/// Pingora's proxy, cancellable.
pub(crate) struct Cancellable<P> {
    inner: Arc<P>,
    streams: Arc<LiveStreams>,
    header_timeout: Duration,
}

impl<P> Cancellable<P> {
    pub(crate) fn new(inner: P, streams: Arc<LiveStreams>, header_timeout: Duration) -> Self {
        Self {
            inner: Arc::new(inner),
            streams,
            header_timeout,
        }
    }
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> HttpServerApp for Cancellable<P> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let reused = session.take_connection_user_context().is_some();
        let handle = Arc::new(RequestHandle::default());
        let inner = CURRENT.scope(
            Arc::clone(&handle),
            self.inner.process_new_http(session, shutdown),
        );
        tokio::pin!(inner);
        let mut deadline = HeaderDeadline::new(self.header_timeout, reused);
        let ended = poll_fn(|context| {
            if let Poll::Ready(reusable) = inner.as_mut().poll(context) {
                return Poll::Ready(Ok(reusable));
            }
            poll_cut(&handle, &mut deadline, context).map(Err)
        })
        .await;
        ended.unwrap_or_else(|cut| {
            if cut == Cut::HeaderTimeout {
                self.streams.count(cut);
            }
            None
        })
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.inner.server_options()
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

/// Whether a request that is not done has been ended. The waker is registered before the look, so
/// that whoever ends the request after it wakes this task.
fn poll_cut(handle: &RequestHandle, deadline: &mut HeaderDeadline, context: &mut Context<'_>) -> Poll<Cut> {
    if handle.is_reading_header() {
        return deadline.poll(context).map(|()| Cut::HeaderTimeout);
    }
    if handle.is_bound() {
        handle.wake_on_cut(context.waker());
        if let Some(cut) = handle.cut() {
            return Poll::Ready(cut);
        }
    }
    Poll::Pending
}

/// What a connection that will be used again carries to its next request, which is how that request
/// knows. Nothing is allocated for it.
pub(crate) struct Reused;

/// How long after it began to wait a connection may be woken for reasons of the request before.
const AFTERMATH: Duration = Duration::from_millis(100);

/// The deadline of a header section.
///
/// On a new connection it starts at once. On one that was used before, it starts with the first byte:
/// the first poll finds an idle connection, whose time Pingora limits, and what wakes the task later
/// is a piece of a header. A header that arrives in one piece then never arms a timer. Channels and
/// timers of the request before may still wake the task right after it, which says nothing.
struct HeaderDeadline {
    timeout: Duration,
    reused: bool,
    idle_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeaderDeadline {
    fn new(timeout: Duration, reused: bool) -> Self {
        Self {
            timeout,
            reused,
            idle_since: None,
            timer: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() && self.is_idle() {
            return Poll::Pending;
        }
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        timer.as_mut().poll(context)
    }

    fn is_idle(&mut self) -> bool {
        self.reused && self.idle_since.get_or_insert_with(Instant::now).elapsed() < AFTERMATH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over(deadline: &mut HeaderDeadline) -> bool {
        let waker = futures_util::task::noop_waker();
        deadline.poll(&mut Context::from_waker(&waker)).is_ready()
    }

    #[tokio::test]
    async fn on_a_used_connection_the_deadline_starts_with_the_first_byte() {
        let mut deadline = HeaderDeadline::new(Duration::from_millis(50), true);
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
        let mut deadline = HeaderDeadline::new(Duration::from_millis(50), false);
        assert!(!is_over(&mut deadline));
        sleep(Duration::from_millis(60)).await;
        assert!(is_over(&mut deadline));
    }
}
