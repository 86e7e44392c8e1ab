//! The connection loop of both servers: HTTP/1.1, bounded, and ended in order.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use crate::unread_body::read_what_the_handler_leaves;

/// HTTP connections open at once; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;

/// Header lines of one request; more are refused with 431.
const MAX_HEADERS: usize = 100;

/// Bytes of one request's head; a longer one is refused with 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Bytes of a connection's read buffer, and of its write buffer.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How long a connection may take to send a request's head. hyper counts the
/// idle time before it too, so this is also the keep-alive time: long, because
/// a proxy that reuses a connection just as it closes has to repeat a request.
const HEAD_TIME: Duration = Duration::from_secs(120);

/// How long requests in flight get to finish once shutdown has begun.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The pause after an accept error that the next accept would only repeat,
/// such as a process out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What ends with the server: the two ends of one signal.
pub(crate) fn lifetime() -> (Stop, Stopping) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Stopping(receiver))
}

/// The server's end of the signal. Dropping it is the same as sending it.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits until nobody holds a [`Stopping`] any more.
    async fn everyone_gone(&self) {
        self.0.closed().await;
    }
}

/// A stream's end of the signal: resolves once the server wants to stop.
/// Whoever holds one is waited for, within [`SHUTDOWN_GRACE`].
#[derive(Debug, Clone)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Resolves when the server has begun to stop, or is gone.
    pub(crate) async fn requested(&mut self) {
        // An error means that the server itself was dropped: stop as well.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

/// Serves `router` on `listener` until `shutdown` resolves, then stops
/// accepting, lets requests in flight finish, and returns.
///
/// Streams must end on their own when their [`Stopping`] resolves; what is
/// still open [`SHUTDOWN_GRACE`] later is cut.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    (stop, stopping): (Stop, Stopping),
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let router = router
        .layer(middleware::map_request(read_what_the_handler_leaves))
        .layer(middleware::from_fn(log_request));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    tracing::info!(%address, "listening");
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            (stream, place) = accept(&listener, &places) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                connections.spawn(serve_connection(stream, router, stopping, place));
            }
        }
    }
    tracing::info!(%address, connections = connections.len(), "stopping");
    drop((listener, router, stopping));
    stop.begin();
    let in_order = timeout(SHUTDOWN_GRACE, async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
        stop.everyone_gone().await;
    });
    if in_order.await.is_err() {
        tracing::warn!(%address, connections = connections.len(), "cut what had not ended");
    }
    Ok(())
}

/// The next connection, and its place among the bounded number. Cancel safe.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return (stream, place),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether an accept error says nothing about the listener: see `accept(2)`.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    mut stopping: Stopping,
    _place: OwnedSemaphorePermit,
) {
    // Answers are written whole: waiting for more to send only adds delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn log_request(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    tracing::debug!(%method, path, status, "answered");
    response
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
