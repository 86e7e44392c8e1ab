//! What a connection of HTTP/2 may do (RFC 9113 section 10.5). The limits that Pingora and h2 have by
//! themselves are kept, and those that matter are named here.

use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::protocols::Stream;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use crate::capped_warning::CappedWarning;
use crate::checked_stream::{Check, checked};
use crate::clock;
use crate::frame_watch::{Allowance, Flood, FrameWatch, Section};
use crate::live_streams::Cut;
use crate::proxy::Shared;

/// Requests at once on a connection.
const MAX_CONCURRENT_STREAMS: u32 = 100;
/// Streams that a client opened and reset before they were looked at; one more ends the connection
/// (CVE-2023-44487).
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that were reset here because of what the client sent on them; one more ends the connection.
const MAX_ERRORS: usize = 128;
/// Bytes of a response that wait for a client that takes none, for each stream.
const MAX_SEND_BUFFER: usize = 128 << 10;
/// Streams that a client resets. Whoever leaves a page resets up to [`MAX_CONCURRENT_STREAMS`].
static RESETS: Allowance = Allowance {
    burst: 500,
    per_second: 50,
};
/// Frames that bring neither a request nor a piece of one: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty
/// DATA, and those of unknown types. A request brings four back, a piece of a body one, and each KiB of a
/// response one.
static FRAMES: Allowance = Allowance {
    burst: 20_000,
    per_second: 5_000,
};
/// How long a connection without a request may stay.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The options of a connection. `max_header_bytes` counts a field's name and value and 32 bytes
/// (RFC 9113 section 6.5.2), over all frames of a header section.
pub(crate) fn options(max_header_bytes: usize) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    options.max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX));
    options.max_pending_accept_reset_streams(MAX_UNSEEN_RESETS);
    options.max_local_error_reset_streams(Some(MAX_ERRORS));
    options.max_send_buffer_size(MAX_SEND_BUFFER);
    options
}

/// What a plain connection of HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a plain connection begins as one of HTTP/2 (RFC 9113 section 3.3); nothing where it ends, or
/// does not show it in time.
pub(crate) async fn is_spoken(
    stream: &mut Stream,
    header_timeout: Duration,
    shared: &Shared,
) -> Option<bool> {
    match timeout(header_timeout, begins_with_preface(stream)).await {
        Ok(spoken) => spoken.ok(),
        Err(_) => {
            shared.streams.count(Cut::HeaderTimeout);
            None
        }
    }
}

/// Looks no further than it has to: a request of HTTP/1 may be shorter than the preface.
async fn begins_with_preface(stream: &mut Stream) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    // No method of HTTP/1 that is served begins like the second.
    for count in [1, 3, PREFACE.len()] {
        if !stream.try_peek(&mut bytes[..count]).await? || bytes[..count] != PREFACE[..count] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The connection of HTTP/2 with its frames watched.
pub(crate) fn watched(stream: Stream, header_timeout: Duration, shared: &Arc<Shared>) -> Stream {
    let check = Frames {
        watch: FrameWatch::new(&RESETS, &FRAMES, clock::now()),
        deadline: SectionDeadline::new(header_timeout),
        shared: Arc::clone(shared),
    };
    checked(stream, check)
}

/// What bounds a connection beside the library.
struct Frames {
    watch: FrameWatch,
    deadline: SectionDeadline,
    shared: Arc<Shared>,
}

impl Debug for Frames {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.watch.fmt(formatter)
    }
}

impl Check for Frames {
    const HTTP2: bool = true;

    fn poll_read(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let polled = Pin::new(inner).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = polled {
            self.watch
                .read(&buffer.filled()[filled..], clock::now)
                .map_err(|flood| self.shared.floods.occurred(flood))?;
        }
        self.unless_late(polled, context)
    }

    fn poll_write(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(inner).poll_write(context, bytes);
        self.written(polled, context)
    }

    fn poll_write_vectored(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(inner).poll_write_vectored(context, slices);
        self.written(polled, context)
    }

    fn poll_flush(&mut self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(inner).poll_flush(context);
        self.unless_late(polled, context)
    }
}

impl Frames {
    fn written(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.watch.sent(*count);
        }
        self.unless_late(polled, context)
    }

    /// What was polled, unless it has to be waited for and the deadline of a header section has passed.
    fn unless_late<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.deadline.poll(self.watch.open_section(), context).is_ready() {
            self.shared.streams.count(Cut::HeaderTimeout);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

/// The deadline of a header section, and of the preface: from its begin to its end, however it trickles.
struct SectionDeadline {
    timeout: Duration,
    /// Of the section that was open when nothing more came. One that comes in one piece needs none.
    timer: Option<(Section, Pin<Box<Sleep>>)>,
}

impl SectionDeadline {
    fn new(timeout: Duration) -> Self {
        Self { timeout, timer: None }
    }

    /// Whether it has passed for the section that is open.
    fn poll(&mut self, open: Option<Section>, context: &mut Context<'_>) -> Poll<()> {
        let Some(open) = open else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.take().filter(|(section, _)| *section == open);
        let (_, timer) = self
            .timer
            .insert(timer.unwrap_or_else(|| (open, Box::pin(sleep(self.timeout)))));
        timer.as_mut().poll(context)
    }
}

impl Flood {
    pub(crate) const ALL: [Self; 2] = [Self::Resets, Self::Frames];

    /// The word for it in metrics and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Resets => "http2_resets",
            Self::Frames => "http2_frames",
        }
    }
}

/// The connections that were ended because of what came on them.
#[derive(Debug, Default)]
pub(crate) struct Floods {
    counts: [AtomicU64; Flood::ALL.len()],
    warning: CappedWarning,
}

impl Floods {
    /// How many.
    pub(crate) fn count(&self, flood: Flood) -> u64 {
        self.counts[flood as usize].load(Ordering::Relaxed)
    }

    /// Counts it, and gives the error that ends the connection.
    fn occurred(&self, flood: Flood) -> io::Error {
        self.counts[flood as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(unsaid) = self.warning.occurred(clock::now()) {
            tracing::warn!(limit = flood.name(), unsaid, "a connection of HTTP/2 was ended");
        }
        io::Error::other(flood.name())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// One whose preface and settings have come, and, where told, the begin of a section after others.
    fn open_section(others: usize) -> Section {
        use durward_testing::http2::{Frame, PREFACE, flag, frame_type};
        let now = Instant::now();
        let mut watch = FrameWatch::new(&RESETS, &FRAMES, now);
        let begin = Frame::new(frame_type::HEADERS, flag::NONE, 1, []).bytes();
        let whole = Frame::headers(1, [], true).bytes().repeat(others);
        let bytes = [PREFACE, &Frame::settings(&[]).bytes(), &whole, &begin].concat();
        watch.read(&bytes, || now).unwrap();
        watch.open_section().unwrap()
    }

    #[tokio::test]
    async fn a_section_has_its_own_time_and_no_section_has_none() {
        let waker = futures_util::task::noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut is_over = |deadline: &mut SectionDeadline, open| deadline.poll(open, &mut context).is_ready();
        let (first, second) = (Some(open_section(0)), Some(open_section(1)));
        assert_ne!(first, second);
        let mut deadline = SectionDeadline::new(Duration::from_millis(50));
        assert!(!is_over(&mut deadline, first));
        sleep(Duration::from_millis(60)).await;
        assert!(!is_over(&mut deadline, second), "another has begun");
        sleep(Duration::from_millis(60)).await;
        assert!(!is_over(&mut deadline, None), "none is open");
        sleep(Duration::from_millis(60)).await;
        assert!(!is_over(&mut deadline, None));
        assert!(!is_over(&mut deadline, first));
        sleep(Duration::from_millis(60)).await;
        assert!(is_over(&mut deadline, first), "the same is still open");
    }
}
