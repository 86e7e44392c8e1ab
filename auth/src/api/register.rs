//! `POST /auth/register`

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::json;
use crate::client_address::ClientFacts;
use crate::json_body::Json;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::service::AuthService;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    username: String,
    password: Secret,
}

/// 201 with the new user's id. That a name is taken is said (409), and asking is rate limited: a
/// service where people choose their names cannot hide it.
pub(super) async fn register(
    State(service): State<AuthService>,
    client: ClientFacts,
    Json(form): Json<Registration>,
) -> Result<Response, Problem> {
    let registered = service
        .inner
        .register(&form.username, &form.password, &client)
        .await;
    let outcome = registered.as_ref().map_or_else(Problem::code, |_| "registered");
    service
        .inner
        .metrics
        .registrations
        .with_label_values(&[outcome])
        .inc();
    let user = registered?;
    Ok(json(
        StatusCode::CREATED,
        &json!({ "id": user.id, "username": user.username }),
    ))
}
