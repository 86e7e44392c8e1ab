//! `GET /auth/sessions` and `DELETE /auth/sessions/{id}`: a user's own sessions.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Parameter, done, json, session_body};
use crate::accounts::UserKey;
use crate::bearer::Caller;
use crate::problem::Problem;
use crate::service::AuthService;

/// The live sessions; `current` is the one of the token that asks.
pub(super) async fn list(State(service): State<AuthService>, caller: Caller) -> Result<Response, Problem> {
    let sessions = service.inner.live_sessions_of(&caller.user.id).await?;
    let bodies: Vec<Value> = sessions
        .iter()
        .map(|session| {
            let mut body = session_body(session);
            body["current"] = json!(session.id == caller.session.id);
            body
        })
        .collect();
    Ok(json(StatusCode::OK, &json!({ "sessions": bodies })))
}

/// Somebody else's session is as unknown as one that never was.
pub(super) async fn end(
    State(service): State<AuthService>,
    caller: Caller,
    Parameter(id): Parameter<String>,
) -> Result<Response, Problem> {
    let (actor, key) = (caller.actor(), UserKey::Id(caller.user.id));
    service
        .inner
        .end_session(actor, key, id, "ended by its user")
        .await?;
    Ok(done())
}
