//! The time for which a connection may lie unused between two requests.
//!
//! Setting a timer for each request, only to give it up when the next one comes, would be most of what
//! waiting costs. So a connection has one timer for all of its requests. It is set when the connection
//! first lies idle, is left as it is by the requests that follow, and is set anew only when it has rung:
//! once in the time, however many requests came meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// The timer, as one request of a connection hands it to the next.
pub(crate) type Timer = Pin<Box<Sleep>>;

/// What a poll of an idle connection's timer may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The connection has lain unused for long enough.
    Over,
    /// It rang for a time that requests have put off since, and was what woke the task.
    Early,
}

/// How long a connection may still lie idle.
#[derive(Debug)]
pub(crate) struct IdleTimer {
    limit: Duration,
    over_at: Option<Instant>,
    timer: Option<Timer>,
}

impl IdleTimer {
    /// `timer` is the one of the request before, where that had one.
    pub(crate) fn new(limit: Duration, timer: Option<Timer>) -> Self {
        Self {
            limit,
            over_at: None,
            timer,
        }
    }

    /// The connection lies idle since then.
    pub(crate) fn begin(&mut self, since: Instant) {
        self.over_at = since.checked_add(self.limit);
    }

    /// The timer, for the next request.
    pub(crate) fn into_timer(self) -> Option<Timer> {
        self.timer
    }

    /// Ready when it has rung. Has the task woken when the connection has lain idle for too long.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ring> {
        let Some(over_at) = self.over_at.map(tokio::time::Instant::from_std) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(over_at)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if timer.deadline() >= over_at {
            return Poll::Ready(Ring::Over);
        }
        timer.as_mut().reset(over_at);
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ring::Over),
            Poll::Pending => Poll::Ready(Ring::Early),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_millis(100);

    fn poll(timer: &mut IdleTimer) -> Poll<Ring> {
        let waker = futures_util::task::noop_waker();
        timer.poll(&mut Context::from_waker(&waker))
    }

    fn idle(timer: Option<Timer>) -> IdleTimer {
        let mut idle = IdleTimer::new(LIMIT, timer);
        idle.begin(Instant::now());
        idle
    }

    #[tokio::test]
    async fn a_connection_may_lie_idle_for_its_limit() {
        let mut timer = IdleTimer::new(LIMIT, None);
        assert!(poll(&mut timer).is_pending(), "it is not idle yet");
        timer.begin(Instant::now());
        assert!(poll(&mut timer).is_pending());
        sleep(LIMIT + LIMIT / 5).await;
        assert_eq!(poll(&mut timer), Poll::Ready(Ring::Over));
    }

    #[tokio::test]
    async fn a_request_puts_off_the_end_and_keeps_the_timer() {
        let mut first = idle(None);
        assert!(poll(&mut first).is_pending());
        sleep(LIMIT * 7 / 10).await;
        let timer = first.into_timer();
        assert!(timer.is_some());
        let mut second = idle(timer);
        assert!(poll(&mut second).is_pending());
        sleep(LIMIT / 2).await;
        assert_eq!(poll(&mut second), Poll::Ready(Ring::Early));
        assert!(poll(&mut second).is_pending());
        sleep(LIMIT).await;
        assert_eq!(poll(&mut second), Poll::Ready(Ring::Over));
    }
}
