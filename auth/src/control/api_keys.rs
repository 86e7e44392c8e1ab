//! What `durward apikey` asks.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::api::{Parameter, api_key_body, json, made_api_key_body};
use crate::api_keys::{MAX_PAGE, NewApiKey};
use crate::audit::Actor;
use crate::json_body::Json;
use crate::problem::Problem;
use crate::service::AuthService;

pub(super) async fn make(
    State(service): State<AuthService>,
    Json(form): Json<NewApiKey>,
) -> Result<Response, Problem> {
    let made = service.inner.make_api_key(Actor::LocalOperator, form).await?;
    Ok(json(StatusCode::CREATED, &made_api_key_body(&made)))
}

/// All keys by service and age: the command line shows a table, not pages.
pub(super) async fn list(State(service): State<AuthService>) -> Result<Response, Problem> {
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.inner.api_keys(&after, MAX_PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
        keys.extend(page);
    }
    keys.sort_by(|left, right| (&left.service, left.created_at).cmp(&(&right.service, right.created_at)));
    let now = service.inner.clock.now();
    let bodies: Vec<_> = keys.iter().map(|key| api_key_body(key, now)).collect();
    Ok(json(StatusCode::OK, &json!({ "api_keys": bodies })))
}

pub(super) async fn revoke(
    State(service): State<AuthService>,
    Parameter(id): Parameter<String>,
) -> Result<Response, Problem> {
    let key = service.inner.revoke_api_key(Actor::LocalOperator, id).await?;
    let now = service.inner.clock.now();
    Ok(json(StatusCode::OK, &api_key_body(&key, now)))
}
