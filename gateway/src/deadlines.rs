//! The times by which a request must have got somewhere: the first byte of its response, its end, the
//! end of its body.
//!
//! Its task keeps them itself ([`crate::cancellable`]), by one timer. What passes before the response
//! has begun is answered with a 504: the connection to the server is closed beneath Pingora, which
//! then reports a failure that [`crate::proxy`] answers. What passes later can only end the response.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

/// What was not reached in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    FirstByte,
    Total,
    /// The body of the request. On HTTP/1.1 Pingora's own timer ends it.
    Body,
    /// The end of a WebSocket that was told to end.
    Goodbye,
}

/// What becomes of a request that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// It fails by itself now, and is answered.
    Fails,
    /// It has to be ended.
    End(Late),
}

/// The deadlines of a request. Nobody but its own task asks for the lock.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// Whether there is any, so that a request without does not look.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    first_byte: Option<Instant>,
    total: Option<Instant>,
    body: Option<Instant>,
    goodbye: Option<Instant>,
    /// The connection to the server, while no response has begun on it and nobody shares it.
    connection: Option<RawFd>,
    /// The response is on its way to the client.
    begun: bool,
    /// On a connection that others share.
    shared: bool,
    late: Option<Late>,
}

impl Deadlines {
    /// Whether there ever was one.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Sets the end of everything.
    pub(crate) fn set_total(&self, at: Instant) {
        self.change(|state| state.total = Some(at));
    }

    /// Sets when the response must have begun.
    pub(crate) fn set_first_byte(&self, at: Instant) {
        self.change(|state| state.first_byte = (!state.begun).then_some(at));
    }

    /// Sets when the body, or its next piece, must have come; nothing once it is whole.
    pub(crate) fn set_body(&self, at: Option<Instant>) {
        self.change(|state| state.body = at);
    }

    /// Sets when a WebSocket that was told to end is ended.
    pub(crate) fn set_goodbye(&self, at: Instant) {
        self.change(|state| state.goodbye = Some(at));
    }

    /// A server was connected to. `shared` connections are not closed for one request.
    pub(crate) fn connected(&self, connection: RawFd, shared: bool) {
        self.change(|state| {
            state.connection = (!shared).then_some(connection);
            state.shared = shared;
        });
    }

    /// The connection to the server is Pingora's alone again.
    pub(crate) fn disconnected(&self) {
        if self.any() {
            let mut state = self.state.lock();
            state.connection = None;
            state.first_byte = None;
        }
    }

    /// The response has begun; `endless` says that it is not bound to end in time.
    pub(crate) fn begun(&self, endless: bool) {
        if self.any() {
            let mut state = self.state.lock();
            state.connection = None;
            state.first_byte = None;
            state.begun = true;
            if endless {
                state.total = None;
                state.body = None;
            }
        }
    }

    /// What was late, if anything was.
    pub(crate) fn late(&self) -> Option<Late> {
        if self.any() { self.state.lock().late } else { None }
    }

    /// What comes next.
    pub(crate) fn next(&self) -> Option<(Instant, Late)> {
        let state = self.state.lock();
        [
            (state.first_byte, Late::FirstByte),
            (state.total, Late::Total),
            (state.body, Late::Body),
            (state.goodbye, Late::Goodbye),
        ]
        .into_iter()
        .filter_map(|(at, late)| Some((at?, late)))
        .min_by_key(|(at, _)| *at)
    }

    /// One of them has passed.
    pub(crate) fn pass(&self, late: Late) -> Consequence {
        let mut state = self.state.lock();
        match late {
            Late::FirstByte => state.first_byte = None,
            Late::Total => state.total = None,
            Late::Body => state.body = None,
            Late::Goodbye => state.goodbye = None,
        }
        state.late.get_or_insert(late);
        if matches!(late, Late::Body | Late::Goodbye) || state.begun || state.shared {
            return Consequence::End(late);
        }
        if let Some(connection) = state.connection.take() {
            // The session that owns it is alive: it is between its connection and its response.
            // Where it is closed already there is nothing to close.
            let _ = shutdown(connection, Shutdown::Both);
        }
        // Not connected yet: its turn ends with `connect_timeout`, and goes no further then.
        Consequence::Fails
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.any.store(true, Ordering::Relaxed);
        change(&mut self.state.lock());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_is_next_and_streams_have_no_end() {
        let deadlines = Deadlines::default();
        assert!(!deadlines.any());
        let now = Instant::now();
        deadlines.set_total(now + Duration::from_secs(3));
        deadlines.set_first_byte(now + Duration::from_secs(2));
        assert_eq!(deadlines.next().unwrap().1, Late::FirstByte);
        deadlines.begun(false);
        deadlines.set_first_byte(now);
        assert_eq!(deadlines.next().unwrap().1, Late::Total);
        deadlines.begun(true);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn what_has_begun_or_is_shared_is_ended_and_the_rest_fails() {
        let deadlines = Deadlines::default();
        deadlines.set_total(Instant::now());
        assert_eq!(deadlines.pass(Late::Total), Consequence::Fails);
        assert_eq!(deadlines.late(), Some(Late::Total));
        deadlines.connected(0, true);
        assert_eq!(deadlines.pass(Late::Total), Consequence::End(Late::Total));
        let deadlines = Deadlines::default();
        deadlines.set_total(Instant::now());
        deadlines.begun(false);
        assert_eq!(deadlines.pass(Late::Total), Consequence::End(Late::Total));
    }
}
