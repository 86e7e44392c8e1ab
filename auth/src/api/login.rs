//! `POST /auth/login`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::tokens;
use crate::client_address::ClientFacts;
use crate::json_body::Json;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::service::AuthService;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    username: String,
    password: Secret,
}

pub(super) async fn login(
    State(service): State<AuthService>,
    client: ClientFacts,
    Json(form): Json<Login>,
) -> Result<Response, Problem> {
    let issued = service.inner.login(&form.username, &form.password, client).await;
    let outcome = issued.as_ref().map_or_else(Problem::code, |_| "logged_in");
    service.inner.metrics.logins.with_label_values(&[outcome]).inc();
    Ok(tokens(&issued?))
}
