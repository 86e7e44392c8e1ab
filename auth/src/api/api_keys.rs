//! `/auth/admin/api-keys`: for users with the role `admin`.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::admin::{DEFAULT_PAGE, Page};
use super::{Parameter, api_key_body, json, made_api_key_body};
use crate::api_keys::{MAX_PAGE, NewApiKey};
use crate::bearer::Admin;
use crate::json_body::Json;
use crate::problem::{Problem, Reason};
use crate::service::AuthService;

/// A page of keys by id; `next` is what to give as `after` for the next one.
pub(super) async fn list(
    State(service): State<AuthService>,
    _: Admin,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|_| Problem::new(Reason::InvalidQuery))?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let keys = service.inner.api_keys(&page.after, limit).await?;
    let full = keys.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = keys.last().filter(|_| full).map(|key| key.id.clone());
    let now = service.inner.clock.now();
    let bodies: Vec<Value> = keys.iter().map(|key| api_key_body(key, now)).collect();
    Ok(json(StatusCode::OK, &json!({ "api_keys": bodies, "next": next })))
}

/// The only answer that has the key itself.
pub(super) async fn make(
    State(service): State<AuthService>,
    admin: Admin,
    Json(form): Json<NewApiKey>,
) -> Result<Response, Problem> {
    let made = service.inner.make_api_key(admin.actor(), form).await?;
    Ok(json(StatusCode::CREATED, &made_api_key_body(&made)))
}

pub(super) async fn revoke(
    State(service): State<AuthService>,
    admin: Admin,
    Parameter(id): Parameter<String>,
) -> Result<Response, Problem> {
    let key = service.inner.revoke_api_key(admin.actor(), id).await?;
    let now = service.inner.clock.now();
    Ok(json(StatusCode::OK, &api_key_body(&key, now)))
}
