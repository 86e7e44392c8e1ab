//! `GET /api/admin/stats`: counts for an operator.
//!
//! Nothing here asks for a role: that is the gateway's rule for `/api/admin/**`,
//! and a second check here would hide a gateway that forgot it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Json,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use serde::Serialize;

use super::{ApiState, MAX_CHATS, MAX_EVENT_STREAMS, note_store::NoteCounts, user::User};

/// Requests since the start, this one included.
#[derive(Debug, Default)]
pub(super) struct RequestCount(AtomicU64);

/// What the server has done and holds.
#[derive(Debug, Serialize)]
pub(super) struct Stats {
    /// Seconds since the start.
    uptime_seconds: u64,
    /// Requests since the start, refused ones and this one included.
    requests: u64,
    /// Event streams open now.
    event_streams: usize,
    /// Chats open now.
    chats: usize,
    /// What the notes amount to.
    notes: NoteCounts,
}

/// Answers with the counts.
pub(super) async fn stats(State(state): State<Arc<ApiState>>, _user: User) -> Json<Stats> {
    Json(Stats {
        uptime_seconds: state.started.elapsed().as_secs(),
        requests: state.requests.0.load(Relaxed),
        event_streams: MAX_EVENT_STREAMS - state.event_streams.available_permits(),
        chats: MAX_CHATS - state.chats.available_permits(),
        notes: state.notes.counts(),
    })
}

/// Middleware: counts every request.
pub(super) async fn count_request(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Response {
    state.requests.0.fetch_add(1, Relaxed);
    next.run(request).await
}
