//! Answers.

use axum::body::Body;
use axum::response::Response;
use durward_contract::UnixSeconds;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::api_keys::MadeApiKey;
use crate::sessions::IssuedTokens;
use crate::store::api_keys::StoredKey;
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

/// That it is done, where there is nothing to say.
pub(crate) fn done() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
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

/// An API key, without its secret.
pub(crate) fn api_key_body(key: &StoredKey, now: UnixSeconds) -> Value {
    json!({
        "id": key.id,
        "kind": key.kind(),
        "certificate": key.certificate,
        "service": key.service,
        "scopes": key.scopes,
        "state": key.state(now),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    })
}

/// An API key with the key itself, for the one answer that shows it.
pub(crate) fn made_api_key_body(made: &MadeApiKey) -> Value {
    let mut body = api_key_body(&made.stored, made.stored.created_at);
    if let Some(text) = &made.secret {
        body["key"] = json!(text.expose());
    }
    body
}
