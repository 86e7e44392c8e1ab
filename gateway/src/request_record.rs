//! What is known of a request while it runs, and its one record at the end: metrics and a line.
//!
//! Pingora calls `logging` for requests that end by themselves. One that is cut, or whose connection
//! task is dropped, never gets there; its record is made when this is dropped.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use durward_policy::{Permit, Reason, RouteId};
use pingora::proxy::Session;

use crate::access_log::push_json_string;
use crate::cancellable::current_request;
use crate::clock;
use crate::live_streams::{Registration, RequestHandle};
use crate::proxy::Shared;

const MAX_METHOD: usize = 32;
const MAX_HOST: usize = 255;
const MAX_PATH: usize = 1024;
const MAX_USER: usize = 256;
const MAX_CAUSE: usize = 256;

/// A request on its way.
pub(crate) struct RequestRecord {
    shared: Arc<Shared>,
    pub(crate) handle: Arc<RequestHandle>,
    pub(crate) started: Instant,
    /// The header section as it was sent.
    pub(crate) raw: Bytes,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) route: Option<RouteId>,
    /// Wall time at the decision.
    pub(crate) wall: Duration,
    pub(crate) decided_at: Instant,
    pub(crate) decision_took: Duration,
    pub(crate) permit: Option<Permit>,
    pub(crate) registration: Option<Registration>,
    /// Why it was refused or failed, with the cause for the log.
    pub(crate) reason: Option<Reason>,
    pub(crate) cause: String,
    /// Where the judged bytes are not those of the header.
    pub(crate) forward_target: Option<Vec<u8>>,
    pub(crate) attempts: usize,
    pub(crate) server: Option<SocketAddr>,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) status: u16,
    recorded: bool,
}

impl RequestRecord {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.enter();
        let handle = current_request();
        handle.header_read();
        let now = Instant::now();
        Self {
            shared: Arc::clone(shared),
            handle,
            started: now,
            wall: Duration::ZERO,
            decided_at: now,
            raw: Bytes::new(),
            client: None,
            route: None,
            decision_took: Duration::ZERO,
            permit: None,
            registration: None,
            reason: None,
            cause: String::new(),
            forward_target: None,
            attempts: 0,
            server: None,
            upstream_took: None,
            status: 0,
            recorded: false,
        }
    }

    /// Records a request that has ended by itself.
    pub(crate) fn finish(&mut self, session: &Session) {
        if let Some(response) = session.response_written() {
            self.status = response.status.as_u16();
        }
        let header = session.req_header();
        let host = header
            .headers
            .get(http::header::HOST)
            .map_or(&b""[..], |host| host.as_bytes());
        let line = RequestLine {
            method: header.method.as_str().as_bytes(),
            path: path_of(header.raw_path()),
            host,
        };
        self.record(&line, session.body_bytes_sent());
    }

    fn record(&mut self, line: &RequestLine<'_>, bytes: usize) {
        self.recorded = true;
        self.registration = None;
        let total = self.started.elapsed();
        self.shared
            .metrics
            .responded(self.route, self.status, total, self.upstream_took);
        if self.shared.log.is_enabled() {
            self.shared
                .log
                .append(|buffer| self.write(buffer, line, bytes, total));
        }
    }

    /// Writes the access log line. Never the query, a header's value or a token.
    fn write(&self, line: &mut Vec<u8>, request: &RequestLine<'_>, bytes: usize, total: Duration) {
        line.extend_from_slice(b"{\"time\":\"");
        write_time(line, self.wall);
        let _ = write!(line, "\",\"id\":\"{:016x}\"", next_id());
        if let Some(client) = self.client {
            let _ = write!(line, ",\"peer\":\"{client}\"");
        }
        member(line, "method", request.method, MAX_METHOD);
        member(line, "host", request.host, MAX_HOST);
        member(line, "path", request.path, MAX_PATH);
        member(
            line,
            "route",
            self.shared.metrics.route_name(self.route).as_bytes(),
            MAX_PATH,
        );
        let outcome = if self.permit.is_some() {
            "permitted"
        } else {
            "refused"
        };
        member(line, "outcome", outcome.as_bytes(), MAX_METHOD);
        if let Some(reason) = self.reason {
            member(line, "reason", reason.code().as_bytes(), MAX_METHOD);
            member(line, "cause", self.cause.as_bytes(), MAX_CAUSE);
        }
        if let Some(cut) = self.handle.cut() {
            member(line, "cut", cut.name().as_bytes(), MAX_METHOD);
        }
        if let Some(token) = self.permit.as_ref().and_then(Permit::principal) {
            member(line, "user", token.subject().as_bytes(), MAX_USER);
        }
        number(line, "status", u64::from(self.status));
        number(line, "bytes", bytes as u64);
        number(line, "duration_us", microseconds(total));
        number(
            line,
            "auth_ns",
            u64::try_from(self.decision_took.as_nanos()).unwrap_or(u64::MAX),
        );
        if let Some(server) = self.server {
            let _ = write!(line, ",\"upstream\":\"{server}\"");
        }
        if let Some(took) = self.upstream_took {
            number(line, "upstream_us", microseconds(took));
        }
        line.extend_from_slice(b"}\n");
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.recorded {
            let raw = std::mem::take(&mut self.raw);
            self.record(&RequestLine::of(&raw), 0);
        }
        self.shared.in_flight.leave();
    }
}

/// What the log tells of a request line.
struct RequestLine<'a> {
    method: &'a [u8],
    path: &'a [u8],
    host: &'a [u8],
}

impl<'a> RequestLine<'a> {
    fn of(raw: &'a [u8]) -> Self {
        let mut lines = raw.split(|byte| *byte == b'\n');
        let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let is_host = |line: &&[u8]| {
            line.get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
        };
        Self {
            method: words.next().unwrap_or_default(),
            path: path_of(words.next().unwrap_or_default()),
            host: lines
                .find(is_host)
                .map_or(&b""[..], |line| line[5..].trim_ascii()),
        }
    }
}

fn path_of(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

fn member(line: &mut Vec<u8>, name: &str, value: &[u8], limit: usize) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    push_json_string(line, value, limit);
}

fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An id that no other request of this process has, and hardly one of another.
fn next_id() -> u64 {
    static START: LazyLock<u64> = LazyLock::new(|| (clock::wall().as_nanos() & u128::from(u64::MAX)) as u64);
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
        static REQUESTS: Cell<u64> = const { Cell::new(0) };
    }
    let request = REQUESTS.with(|count| count.replace(count.get().wrapping_add(1)));
    START
        .wrapping_add(THREAD.with(|thread| *thread) << 44)
        .wrapping_add(request)
}

/// RFC 3339 in UTC, to the millisecond (the calendar is Howard Hinnant's `civil_from_days`).
fn write_time(line: &mut Vec<u8>, wall: Duration) {
    let seconds = wall.as_secs();
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let day = day + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    for (value, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day_of_month, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (u64::from(wall.subsec_millis()), 3, b'Z'),
    ] {
        for place in (0..width).rev() {
            line.push(b'0' + (value / 10_u64.pow(place) % 10) as u8);
        }
        line.push(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.005Z"),
            (1_700_000_000, 120, "2023-11-14T22:13:20.120Z"),
            (4_102_444_800, 0, "2100-01-01T00:00:00.000Z"),
        ] {
            let mut line = Vec::new();
            write_time(
                &mut line,
                Duration::from_secs(seconds) + Duration::from_millis(millis),
            );
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    #[test]
    fn a_cancelled_request_is_told_from_its_raw_header_without_its_query() {
        let line = RequestLine::of(b"GET /a/b?token=x HTTP/1.1\r\nAccept: */*\r\nHOST:  a.example \r\n\r\n");
        assert_eq!(
            (line.method, line.path, line.host),
            (&b"GET"[..], &b"/a/b"[..], &b"a.example"[..])
        );
        let empty = RequestLine::of(b"");
        assert_eq!(
            (empty.method, empty.path, empty.host),
            (&b""[..], &b""[..], &b""[..])
        );
    }
}
