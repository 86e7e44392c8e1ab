//! The API server: who am I, notes, statistics, events and a chat.

mod chat;
mod events;
mod me;
mod note_store;
mod notes;
mod stats;
mod user;

use std::{io, sync::Arc, time::Instant};

use axum::{Router, extract::DefaultBodyLimit, middleware, response::Response, routing::get};
use http::{HeaderValue, header};
use tokio::{net::TcpListener, sync::Semaphore};

use self::{note_store::NoteStore, stats::RequestCount};
use crate::{
    problem::{no_such_method, no_such_path},
    serve::{self, Stopping},
};

/// Event streams open at once; one more is refused with 503.
const MAX_EVENT_STREAMS: usize = 2048;

/// Chats open at once; one more is refused with 503.
const MAX_CHATS: usize = 2048;

/// Runs the API server on `listener` until `shutdown` resolves.
///
/// Every path asks for `X-User-Id` and answers 400 without it:
///
/// | path | what |
/// | --- | --- |
/// | `GET /api/me` | the user, their roles, and what of the request arrived |
/// | `GET`, `POST /api/notes` | the user's notes; add one: `{"text": "..."}` |
/// | `GET`, `DELETE /api/notes/{id}` | one note of the user |
/// | `GET /api/admin/stats` | counts; asks for no role, that is the gateway's part |
/// | `GET /api/events` | server-sent events: `hello`, then a `tick` each second |
/// | `GET /api/chat` | a WebSocket that says who you are, then echoes |
///
/// Notes live in memory, in bounded number and size, and end with the process.
/// Once `shutdown` resolves, requests in flight finish, and event streams and
/// chats are ended by the server.
///
/// # Errors
///
/// When the listener's own address cannot be read.
pub async fn serve_api(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, stopping) = serve::lifetime();
    let router = router(Arc::new(ApiState::new(stopping.clone())));
    serve::serve(listener, router, (stop, stopping), shutdown).await
}

/// What the handlers share.
struct ApiState {
    started: Instant,
    requests: RequestCount,
    notes: NoteStore,
    event_streams: Arc<Semaphore>,
    chats: Arc<Semaphore>,
    stopping: Stopping,
}

impl ApiState {
    fn new(stopping: Stopping) -> Self {
        Self {
            started: Instant::now(),
            requests: RequestCount::default(),
            notes: NoteStore::default(),
            event_streams: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)),
            chats: Arc::new(Semaphore::new(MAX_CHATS)),
            stopping,
        }
    }
}

fn router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/api/me", get(me::me))
        .route("/api/notes", get(notes::list).post(notes::add))
        .route("/api/notes/{id}", get(notes::read).delete(notes::delete))
        .route("/api/admin/stats", get(stats::stats))
        .route("/api/events", get(events::events))
        .route("/api/chat", get(chat::chat))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(notes::MAX_BODY_BYTES))
        .layer(middleware::map_response(not_for_caches))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&state),
            stats::count_request,
        ))
        .with_state(state)
}

/// Every answer is about one user: no cache may keep it for another.
async fn not_for_caches(mut response: Response) -> Response {
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
