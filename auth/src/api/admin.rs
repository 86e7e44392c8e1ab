//! `/auth/admin/…`: for users with the role `admin`.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Parameter, json, session_body, user_body};
use crate::accounts::{RoleChange, UserKey};
use crate::bearer::Admin;
use crate::json_body::{Json, OptionalJson};
use crate::problem::{Problem, Reason};
use crate::service::AuthService;

/// How much of a list is told where the request does not say.
pub(super) const DEFAULT_PAGE: u32 = 50;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) after: String,
    #[serde(default)]
    pub(super) limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ban {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Roles {
    roles: Vec<String>,
}

/// A page of users by name; `next` is what to give as `after` for the next one.
pub(super) async fn users(
    State(service): State<AuthService>,
    _: Admin,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|_| Problem::new(Reason::InvalidQuery))?;
    let limit = page
        .limit
        .unwrap_or(DEFAULT_PAGE)
        .clamp(1, crate::accounts::MAX_PAGE);
    let users = service.inner.users(&page.after, limit).await?;
    let full = users.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = users.last().filter(|_| full).map(|user| user.username.clone());
    let bodies: Vec<Value> = users.iter().map(user_body).collect();
    Ok(json(StatusCode::OK, &json!({ "users": bodies, "next": next })))
}

pub(super) async fn ban(
    State(service): State<AuthService>,
    admin: Admin,
    Parameter(id): Parameter<String>,
    OptionalJson(form): OptionalJson<Ban>,
) -> Result<Response, Problem> {
    let user = service
        .inner
        .ban(admin.actor(), UserKey::Id(id), form.reason)
        .await?;
    Ok(json(StatusCode::OK, &user_body(&user)))
}

pub(super) async fn unban(
    State(service): State<AuthService>,
    admin: Admin,
    Parameter(id): Parameter<String>,
) -> Result<Response, Problem> {
    let user = service.inner.unban(admin.actor(), UserKey::Id(id)).await?;
    Ok(json(StatusCode::OK, &user_body(&user)))
}

/// Replaces the roles.
pub(super) async fn roles(
    State(service): State<AuthService>,
    admin: Admin,
    Parameter(id): Parameter<String>,
    Json(form): Json<Roles>,
) -> Result<Response, Problem> {
    let user = service
        .inner
        .change_roles(admin.actor(), UserKey::Id(id), RoleChange::Set(form.roles))
        .await?;
    Ok(json(StatusCode::OK, &user_body(&user)))
}

pub(super) async fn sessions(
    State(service): State<AuthService>,
    _: Admin,
    Parameter(id): Parameter<String>,
) -> Result<Response, Problem> {
    let sessions = service.inner.sessions_of(&UserKey::Id(id)).await?;
    let bodies: Vec<Value> = sessions.iter().map(session_body).collect();
    Ok(json(StatusCode::OK, &json!({ "sessions": bodies })))
}

pub(super) async fn end_sessions(
    State(service): State<AuthService>,
    admin: Admin,
    Parameter(id): Parameter<String>,
) -> Result<Response, Problem> {
    let ended = service
        .inner
        .end_all_sessions(admin.actor(), UserKey::Id(id), "ended by an administrator")
        .await?;
    Ok(json(StatusCode::OK, &json!({ "ended": ended })))
}
