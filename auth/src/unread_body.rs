//! Reading on after an early answer, so that the client gets to see it.
//!
//! A request may be refused before its body is read. If the connection were then closed with bytes
//! unread, the kernel would reset it and a client that is still sending could lose the answer
//! (RFC 9112 section 9.6). So the rest is read and thrown away, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use http::header::EXPECT;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Bytes of one body that are read and thrown away.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;
/// How long one body may keep its connection.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Middleware: what the handler does not read of the body, this reads.
pub(crate) async fn read_what_the_handler_leaves(request: Request) -> Request {
    // A client that asked first (RFC 9110 section 10.1.1) sends nothing once it has its refusal, and
    // reading would tell it to go ahead.
    if request.headers().contains_key(EXPECT) {
        return request;
    }
    request.map(|body| Body::new(DiscardRest(body)))
}

/// A body that is read to its end in the background when it is dropped early.
struct DiscardRest(Body);

impl HttpBody for DiscardRest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for DiscardRest {
    fn drop(&mut self) {
        if self.0.is_end_stream() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let rest = std::mem::take(&mut self.0);
            runtime.spawn(timeout(DISCARD_TIME, discard(rest)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut discarded = 0_usize;
    while discarded <= MAX_DISCARDED_BYTES {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let Some(Ok(frame)) = next.await else { return };
        discarded += frame.data_ref().map_or(0, Bytes::len);
    }
}
