//! `POST /auth/logout` and `POST /auth/logout-all`

use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::Response;
use serde::Deserialize;

use super::done;
use crate::accounts::UserKey;
use crate::bearer::Caller;
use crate::json_body::OptionalJson;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::service::AuthService;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logout {
    #[serde(default)]
    refresh_token: Option<Secret>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Ends the session of the refresh token in the body, or, without one, the session of the access
/// token. An unknown refresh token is no error (RFC 7009 section 2.2).
pub(super) async fn logout(
    State(service): State<AuthService>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let OptionalJson(form) = OptionalJson::<Logout>::from_request(request, &()).await?;
    match form.refresh_token {
        Some(token) => service.inner.logout(&token).await?,
        None => {
            let caller = Caller::from_request_parts(&mut parts, &service).await?;
            let (actor, key) = (caller.actor(), UserKey::Id(caller.user.id));
            service
                .inner
                .end_session(actor, key, caller.session.id, "logout")
                .await?;
        }
    }
    Ok(done())
}

/// Ends every session of the caller, this one too.
pub(super) async fn logout_all(
    State(service): State<AuthService>,
    caller: Caller,
    _: OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    let (actor, key) = (caller.actor(), UserKey::Id(caller.user.id));
    service
        .inner
        .end_all_sessions(actor, key, "logout everywhere")
        .await?;
    Ok(done())
}
