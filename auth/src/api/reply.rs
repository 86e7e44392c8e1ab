//! Answers.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::sessions::IssuedTokens;
use crate::store::sessions::Session;
use crate::store::users::User;

/// A JSON answer that nobody keeps.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Tokens (RFC 6749 section 5.1).
pub(crate) fn tokens(issued: &IssuedTokens) -> Response {
    let body = json!({
        "access_token": issued.access_token.expose(),
        "refresh_token": issued.refresh_token.expose(),
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
    });
    let mut response = json(StatusCode::OK, &body);
    response
        .headers_mut()
        .insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// A user as administrators see one.
pub(crate) fn user_body(user: &User) -> Value {
    let mut body = json!({
        "id": user.id,
        "username": user.username,
        "roles": user.roles,
        "banned": user.banned,
        "created_at": user.created_at,
    });
    if user.banned {
        body["banned_at"] = json!(user.banned_at);
        body["banned_reason"] = json!(user.ban_reason);
    }
    body
}

/// A session.
pub(crate) fn session_body(session: &Session) -> Value {
    json!({
        "id": session.id,
        "client_id": session.client_id,
        "client_address": session.client_address,
        "user_agent": session.user_agent,
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "expires_at": session.expires_at,
        "revoked": session.revoked,
        "blacklisted": session.blacklisted,
    })
}
