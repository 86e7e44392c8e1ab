//! `GET /auth/me`, `POST /auth/password` and `GET /.well-known/jwks.json`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{json, tokens};
use crate::bearer::Caller;
use crate::client_address::ClientFacts;
use crate::json_body::Json;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::service::AuthService;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordChange {
    current_password: Secret,
    new_password: Secret,
}

pub(super) async fn me(caller: Caller) -> Response {
    let Caller { user, session, .. } = caller;
    let body = json!({
        "id": user.id,
        "username": user.username,
        "roles": user.roles,
        "session_id": session.id,
        "created_at": user.created_at,
    });
    json(StatusCode::OK, &body)
}

/// Ends every session and answers with the tokens of a new one.
pub(super) async fn password(
    State(service): State<AuthService>,
    caller: Caller,
    client: ClientFacts,
    Json(form): Json<PasswordChange>,
) -> Result<Response, Problem> {
    let issued = service
        .inner
        .change_password(caller, &form.current_password, &form.new_password, client)
        .await?;
    Ok(tokens(&issued))
}

/// Public keys (RFC 7517). Gateways read them again now and then; five minutes of a cache do no harm.
pub(super) async fn jwks(State(service): State<AuthService>) -> Response {
    service.inner.read_keys_when_asked().await;
    let jwks = service.jwks().borrow().clone();
    let mut response = Response::new(Body::from(Bytes::copy_from_slice(&jwks)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/jwk-set+json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    response
}
