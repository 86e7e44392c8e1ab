//! The command line's API. It does what the admin API does, by user name, and its actor is the local
//! operator: whoever may open the socket.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::accounts::{MAX_PAGE, NewUser, RoleChange, UserKey};
use crate::api::keys::{self, RotationForm};
use crate::api::revocations::{self, Revocation};
use crate::api::{Parameter, audit, json, method_not_allowed, not_found, session_body, user_body};
use crate::audit::Actor;
use crate::json_body::{Json, OptionalJson};
use crate::problem::Problem;
use crate::reach::wait_for_gateways;
use crate::secret::Secret;
use crate::service::AuthService;

mod api_keys;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddUser {
    username: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    password: Option<Secret>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(default)]
    reason: Option<String>,
}

/// Every route.
pub(crate) fn router(service: AuthService) -> Router {
    Router::new()
        .route("/users", get(list_users).post(add_user))
        .route("/users/{username}/roles", post(change_roles))
        .route("/users/{username}/ban", put(ban).delete(unban))
        .route(
            "/users/{username}/sessions",
            get(list_sessions).delete(end_sessions),
        )
        .route("/users/{username}/sessions/{id}", delete(end_session))
        .route("/keys", get(list_keys))
        .route("/api-keys", get(api_keys::list).post(api_keys::make))
        .route("/api-keys/{id}", delete(api_keys::revoke))
        .route("/keys/rotate", post(rotate_keys))
        .route("/revocations", post(revoke))
        .route("/revocations/{run}", get(list_revoked))
        .route("/audit", get(list_audit))
        .route_layer(middleware::from_fn_with_state(service.clone(), wait_for_gateways))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(service)
}

async fn add_user(
    State(service): State<AuthService>,
    Json(form): Json<AddUser>,
) -> Result<Response, Problem> {
    let new = NewUser {
        username: form.username,
        roles: form.roles,
        password: form.password,
    };
    let added = service.add_user(new).await?;
    let mut body =
        json!({ "id": added.id, "username": added.username, "roles": added.roles, "banned": false });
    if let Some(password) = added.password {
        body["password"] = json!(password.expose());
    }
    Ok(json(StatusCode::CREATED, &body))
}

/// All users: the command line shows a table, not pages.
async fn list_users(State(service): State<AuthService>) -> Result<Response, Problem> {
    let (mut bodies, mut after) = (Vec::<Value>::new(), String::new());
    loop {
        let page = service.inner.users(&after, MAX_PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.username);
        bodies.extend(page.iter().map(user_body));
    }
    Ok(json(StatusCode::OK, &json!({ "users": bodies })))
}

async fn change_roles(
    State(service): State<AuthService>,
    Parameter(username): Parameter<String>,
    Json(form): Json<Roles>,
) -> Result<Response, Problem> {
    let change = RoleChange::Adjust {
        add: form.add,
        remove: form.remove,
    };
    let user = service
        .inner
        .change_roles(Actor::LocalOperator, UserKey::of_operator(username), change)
        .await?;
    Ok(json(StatusCode::OK, &user_body(&user)))
}

async fn ban(
    State(service): State<AuthService>,
    Parameter(username): Parameter<String>,
    OptionalJson(form): OptionalJson<Ban>,
) -> Result<Response, Problem> {
    let user = service
        .inner
        .ban(Actor::LocalOperator, UserKey::of_operator(username), form.reason)
        .await?;
    Ok(json(StatusCode::OK, &user_body(&user)))
}

async fn unban(
    State(service): State<AuthService>,
    Parameter(username): Parameter<String>,
) -> Result<Response, Problem> {
    let user = service
        .inner
        .unban(Actor::LocalOperator, UserKey::of_operator(username))
        .await?;
    Ok(json(StatusCode::OK, &user_body(&user)))
}

async fn list_sessions(
    State(service): State<AuthService>,
    Parameter(username): Parameter<String>,
) -> Result<Response, Problem> {
    let sessions = service.inner.sessions_of(&UserKey::of_operator(username)).await?;
    let bodies: Vec<Value> = sessions.iter().map(session_body).collect();
    Ok(json(StatusCode::OK, &json!({ "sessions": bodies })))
}

async fn end_sessions(
    State(service): State<AuthService>,
    Parameter(username): Parameter<String>,
) -> Result<Response, Problem> {
    let key = UserKey::of_operator(username);
    let ended = service
        .inner
        .end_all_sessions(Actor::LocalOperator, key, "ended by the operator")
        .await?;
    Ok(json(StatusCode::OK, &json!({ "ended": ended })))
}

async fn end_session(
    State(service): State<AuthService>,
    Parameter((username, id)): Parameter<(String, String)>,
) -> Result<Response, Problem> {
    let key = UserKey::of_operator(username);
    service
        .inner
        .end_session(Actor::LocalOperator, key, id, "ended by the operator")
        .await?;
    Ok(json(StatusCode::OK, &json!({ "ended": 1 })))
}

async fn revoke(
    State(service): State<AuthService>,
    Json(form): Json<Revocation>,
) -> Result<Response, Problem> {
    form.run(&service, Actor::LocalOperator).await
}

async fn list_revoked(
    State(service): State<AuthService>,
    Parameter(run): Parameter<String>,
    page: Result<Query<revocations::Page>, QueryRejection>,
) -> Result<Response, Problem> {
    revocations::list_run(&service, &run, page).await
}

async fn list_audit(
    State(service): State<AuthService>,
    page: Result<Query<audit::Page>, QueryRejection>,
) -> Result<Response, Problem> {
    audit::trail(&service, page).await
}

async fn list_keys(State(service): State<AuthService>) -> Response {
    keys::listed(&service)
}

async fn rotate_keys(
    State(service): State<AuthService>,
    OptionalJson(form): OptionalJson<RotationForm>,
) -> Result<Response, Problem> {
    form.run(&service, Actor::LocalOperator).await
}
