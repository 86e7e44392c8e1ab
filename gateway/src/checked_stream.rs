//! A client's connection whose bytes are checked on their way to Pingora.
//!
//! Of HTTP/1.1 each request line is, and header sections are counted: one that is too large for Pingora is
//! answered as such. Which bytes begin a request is known to whoever runs it:
//! [`reading_head_of`] says so around the poll in which Pingora reads. What is checked of HTTP/2 is in
//! [`crate::http2`].
//!
//! Once a WebSocket is opened on it, what passes is followed by that ([`crate::websocket`]).

use std::cell::Cell;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head_size::{self, HeadSize};
use crate::request_line::RequestLine;
use crate::websocket::WebSocket;

/// A request, told from the one before it on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestNumber(u64);

impl RequestNumber {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

thread_local! {
    /// The request whose header section is read within the poll that runs on this thread.
    static READING: Cell<Option<RequestNumber>> = const { Cell::new(None) };
}

/// What is read from now on within this poll is the header section of this request.
pub(crate) fn reading_head_of(request: RequestNumber) {
    READING.set(Some(request));
}

/// What is read from now on within this poll is something else.
pub(crate) fn head_is_read() {
    READING.set(None);
}

/// What stands between Pingora and a connection. An error ends the connection.
pub(crate) trait Check: Debug + Send + Sync + Unpin + 'static {
    /// Whether the connection is one of HTTP/2.
    const HTTP2: bool;

    /// Reads.
    fn poll_read(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// Writes.
    fn poll_write(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>>;

    /// Writes out of several places.
    fn poll_write_vectored(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Flushes.
    fn poll_flush(&mut self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The connection ends.
    fn dropped(&mut self, _inner: &mut Stream) {}
}

/// The connection of HTTP/1.1 with its request lines checked.
pub(crate) fn http1(stream: Stream) -> Stream {
    checked(
        stream,
        Http1 {
            request: None,
            line: RequestLine::Done,
            size: HeadSize::default(),
            refusal: None,
            websocket: OnceLock::new(),
        },
    )
}

/// The connection with `check` before it.
pub(crate) fn checked(stream: Stream, check: impl Check) -> Stream {
    Box::new(CheckedStream { inner: stream, check })
}

/// What is checked of HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Http1 {
    /// The request whose line `line` is in.
    request: Option<RequestNumber>,
    line: RequestLine,
    /// What has come of its header section.
    size: HeadSize,
    /// What is sent in the place of Pingora's own answer.
    refusal: Option<Refusal>,
    websocket: OnceLock<Arc<WebSocket>>,
}

/// An answer on its way.
#[derive(Debug)]
struct Refusal {
    bytes: Vec<u8>,
    sent: usize,
}

impl CheckedStream<Http1> {
    /// A WebSocket is about to be opened on it.
    pub(crate) fn follow(&self, websocket: &Arc<WebSocket>) {
        let _ = self.check.websocket.set(Arc::clone(websocket));
    }
}

impl Http1 {
    /// Whether what is written now is what Pingora says of a header section that it has no room for.
    fn refuses(&self) -> bool {
        self.size.is_too_large() && READING.get().is_some()
    }

    /// Sends our answer, and then says that Pingora's, of this length, was sent.
    fn poll_refuse(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let refusal = self.refusal.get_or_insert_with(|| Refusal {
            bytes: head_size::too_large(),
            sent: 0,
        });
        while let Some(rest @ [_, ..]) = refusal.bytes.get(refusal.sent..) {
            match Pin::new(&mut *inner).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => refusal.sent += sent,
                other => return other,
            }
        }
        Poll::Ready(Ok(length))
    }
}

impl Check for Http1 {
    const HTTP2: bool = false;

    fn poll_read(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(websocket) = self.websocket.get() {
            return websocket.poll_read(inner, context, buffer);
        }
        let filled = buffer.filled().len();
        let polled = Pin::new(inner).poll_read(context, buffer);
        let reading = READING.get();
        if reading.is_some() && reading != self.request {
            self.request = reading;
            self.line = RequestLine::default();
            self.size = HeadSize::default();
        }
        if reading.is_some() {
            self.size.add(&buffer.filled()[filled..]);
        }
        if reading.is_some() && self.line != RequestLine::Done {
            self.line.check(&mut buffer.filled_mut()[filled..]);
        }
        polled
    }

    fn poll_write(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.websocket.get() {
            Some(websocket) => websocket.poll_write(inner, context, bytes),
            None if self.refuses() => self.poll_refuse(inner, context, bytes.len()),
            None => Pin::new(inner).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.websocket.get() {
            Some(websocket) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                websocket.poll_write(inner, context, first.map_or(&[], |slice| slice))
            }
            None if self.refuses() => {
                let length = slices.iter().map(|slice| slice.len()).sum();
                self.poll_refuse(inner, context, length)
            }
            None => Pin::new(inner).poll_write_vectored(context, slices),
        }
    }

    fn poll_flush(&mut self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.websocket.get() {
            Some(websocket) => websocket.poll_flush(inner, context),
            None => Pin::new(inner).poll_flush(context),
        }
    }

    fn dropped(&mut self, inner: &mut Stream) {
        if let Some(websocket) = self.websocket.get() {
            websocket.dropped(inner);
        }
    }
}

/// A connection with a check before it.
#[derive(Debug)]
pub(crate) struct CheckedStream<C: Check> {
    inner: Stream,
    check: C,
}

impl<C: Check> Drop for CheckedStream<C> {
    fn drop(&mut self) {
        self.check.dropped(&mut self.inner);
    }
}

impl<C: Check> AsyncRead for CheckedStream<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check.poll_read(&mut this.inner, context, buffer)
    }
}

impl<C: Check> AsyncWrite for CheckedStream<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check.poll_write(&mut this.inner, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check.poll_write_vectored(&mut this.inner, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check.poll_flush(&mut this.inner, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[async_trait]
impl<C: Check> Shutdown for CheckedStream<C> {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl<C: Check> UniqueID for CheckedStream<C> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<C: Check> Ssl for CheckedStream<C> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<C: Check> GetTimingDigest for CheckedStream<C> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl<C: Check> GetProxyDigest for CheckedStream<C> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl<C: Check> GetSocketDigest for CheckedStream<C> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[async_trait]
impl<C: Check> Peek for CheckedStream<C> {
    /// Where Pingora asks, it wants to know whether a plain connection begins as one of HTTP/2. That is
    /// known here: without a look it goes by what the listener speaks, which is HTTP/2; and a look that
    /// finds nothing of it says HTTP/1.1.
    async fn try_peek(&mut self, _buffer: &mut [u8]) -> io::Result<bool> {
        Ok(!C::HTTP2)
    }
}
