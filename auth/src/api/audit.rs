//! `GET /auth/admin/audit`; the control socket gives the same.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use durward_contract::UnixSeconds;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::json;
use crate::bearer::Admin;
use crate::problem::{Problem, Reason};
use crate::service::AuthService;
use crate::store::audit::{self, Entry};

const DEFAULT_PAGE: u32 = 200;
const MAX_PAGE: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    since: i64,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    after: i64,
    #[serde(default)]
    limit: Option<u32>,
}

pub(super) async fn list(
    State(service): State<AuthService>,
    _: Admin,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    trail(&service, page).await
}

/// A page of the audit trail, the oldest first; `next` is what to give as `after` for the next one.
pub(crate) async fn trail(
    service: &AuthService,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|_| Problem::new(Reason::InvalidQuery))?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let mut read = service.inner.store.read().await?;
    let action = page.action.as_deref();
    // PostgreSQL has no text with a NUL in it.
    if action.is_some_and(|action| action.contains('\0')) {
        return Err(Reason::InvalidQuery.into());
    }
    let entries = audit::page(&mut read, UnixSeconds(page.since), action, page.after, limit).await?;
    let full = entries.len() >= limit as usize;
    let next = entries.last().filter(|_| full).map(|entry| entry.id);
    let bodies: Vec<Value> = entries.iter().map(body).collect();
    Ok(json(StatusCode::OK, &json!({ "audit": bodies, "next": next })))
}

fn body(entry: &Entry) -> Value {
    // What revokes has an object for its detail; everything else has a text.
    let detail = match serde_json::from_str(&entry.detail) {
        Ok(Value::Object(object)) if STRUCTURED.contains(&entry.action.as_str()) => Value::Object(object),
        _ => json!(entry.detail),
    };
    json!({
        "id": entry.id,
        "at": entry.at,
        "actor": entry.actor,
        "actor_name": entry.actor_name,
        "action": entry.action,
        "target": entry.target,
        "detail": detail,
    })
}

/// Actions whose detail is written as JSON. The reason of a ban is a text, whatever it looks like.
const STRUCTURED: [&str; 6] = [
    "sessions_revoked",
    "everyone_revoked",
    "token_revoked",
    "signing_key_announced",
    "signing_key_revoked",
    "signing_key_rotated",
];
