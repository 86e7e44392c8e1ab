//! `POST /auth/refresh`: a token endpoint, so its errors have the shape of RFC 6749 section 5.2.

use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use serde::Deserialize;

use super::tokens;
use crate::json_body::Json;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::service::AuthService;
use crate::sessions::IssuedTokens;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    refresh_token: Secret,
}

pub(super) async fn refresh(
    State(service): State<AuthService>,
    request: Request,
) -> Result<Response, Problem> {
    let issued = refreshed(&service, request).await;
    let outcome = issued.as_ref().map_or_else(Problem::code, |_| "refreshed");
    service
        .inner
        .metrics
        .refreshes
        .with_label_values(&[outcome])
        .inc();
    issued
        .map(|issued| tokens(&issued))
        .map_err(Problem::at_token_endpoint)
}

async fn refreshed(service: &AuthService, request: Request) -> Result<IssuedTokens, Problem> {
    let Json(form) = Json::<Refresh>::from_request(request, &()).await?;
    service.inner.refresh(&form.refresh_token).await
}
