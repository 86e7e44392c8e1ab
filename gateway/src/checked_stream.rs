//! A client's connection whose request lines are checked on their way to Pingora's parser.
//!
//! Which bytes begin a request is known to whoever runs it: [`reading_head_of`] says so around the poll
//! in which Pingora reads.
//!
//! Once a WebSocket is opened on it, what passes is followed by that ([`crate::websocket`]).

use std::cell::Cell;
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

/// The connection with its request lines checked; HTTP/2 has none, with TLS or without.
pub(crate) fn checked(stream: Stream) -> Stream {
    match stream.selected_alpn_proto() {
        Some(ALPN::H2) => stream,
        _ => Box::new(CheckedStream {
            inner: stream,
            request: None,
            line: RequestLine::Done,
            websocket: OnceLock::new(),
        }),
    }
}

/// A connection of HTTP/1.1.
#[derive(Debug)]
pub(crate) struct CheckedStream {
    inner: Stream,
    /// The request whose line `line` is in.
    request: Option<RequestNumber>,
    line: RequestLine,
    websocket: OnceLock<Arc<WebSocket>>,
}

impl CheckedStream {
    /// A WebSocket is about to be opened on it.
    pub(crate) fn follow(&self, websocket: &Arc<WebSocket>) {
        let _ = self.websocket.set(Arc::clone(websocket));
    }
}

impl Drop for CheckedStream {
    fn drop(&mut self) {
        if let Some(websocket) = self.websocket.get() {
            websocket.dropped(&mut self.inner);
        }
    }
}

impl AsyncRead for CheckedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(websocket) = this.websocket.get() {
            return websocket.poll_read(&mut this.inner, context, buffer);
        }
        let filled = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        let reading = READING.get();
        if reading.is_some() && reading != this.request {
            this.request = reading;
            this.line = RequestLine::default();
        }
        if reading.is_some() && this.line != RequestLine::Done {
            this.line.check(&mut buffer.filled_mut()[filled..]);
        }
        polled
    }
}

impl AsyncWrite for CheckedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.websocket.get() {
            Some(websocket) => websocket.poll_write(&mut this.inner, context, bytes),
            None => Pin::new(&mut this.inner).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.websocket.get() {
            Some(websocket) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                websocket.poll_write(&mut this.inner, context, first.map_or(&[], |slice| slice))
            }
            None => Pin::new(&mut this.inner).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.websocket.get() {
            Some(websocket) => websocket.poll_flush(&mut this.inner, context),
            None => Pin::new(&mut this.inner).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for CheckedStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for CheckedStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for CheckedStream {
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

impl GetTimingDigest for CheckedStream {
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

impl GetProxyDigest for CheckedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for CheckedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for CheckedStream {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}
