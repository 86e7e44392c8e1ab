//! Reading on after an early answer, so that the client gets to see it.
//!
//! A handler may answer before it has read the request's body: 413 at the first
//! look at `Content-Length`, 400 for a bad name. If the server then closed the
//! connection with bytes unread, the kernel would reset it and the client, still
//! sending, could lose the answer (RFC 9112, section 9.6). So the rest is read
//! and thrown away, within bounds.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::Bytes;
use http::header;
use hyper::body::{Frame, SizeHint};
use tokio::{runtime::Handle, time::timeout};

/// Bytes of one unread body that are read and thrown away.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// How long one unread body may keep its connection.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Middleware: what the handler does not read of the body, this reads.
pub(crate) async fn read_what_the_handler_leaves(request: Request) -> Request {
    // A client that asked first (RFC 9110, section 10.1.1) sends nothing once
    // it has its refusal, and reading would tell it to go ahead.
    if request.headers().contains_key(header::EXPECT) {
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use futures_util::stream;
    use tokio::task::yield_now;

    use super::*;

    /// A body of `chunks` chunks that counts how many were taken from it.
    fn counted_body(chunks: usize) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let chunks = stream::iter((0..chunks).map(move |_| {
            count.fetch_add(1, Relaxed);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(b"chunk"))
        }));
        (Body::from_stream(chunks), taken)
    }

    #[tokio::test]
    async fn an_unread_body_is_read_to_its_end() {
        let (body, taken) = counted_body(10);
        drop(read_what_the_handler_leaves(Request::new(body)).await);
        while taken.load(Relaxed) < 10 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn nothing_is_read_for_a_client_that_waits_for_100_continue() {
        let (body, taken) = counted_body(10);
        let request = Request::builder().header("expect", "100-continue");
        drop(read_what_the_handler_leaves(request.body(body).unwrap()).await);
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(taken.load(Relaxed), 0);
    }
}
