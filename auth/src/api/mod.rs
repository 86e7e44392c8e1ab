//! The HTTP API: one file for each subject. Handlers read the request and say the answer; what is
//! done is done in `accounts.rs` and `sessions.rs`.

mod account;
mod admin;
mod api_keys;
pub(crate) mod audit;
pub(crate) mod keys;
mod login;
mod logout;
mod path;
mod refresh;
mod register;
mod reply;
pub(crate) mod revocations;
mod sessions;

pub(crate) use path::Parameter;
pub(crate) use reply::{api_key_body, done, json, made_api_key_body, session_body, tokens, user_body};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post, put};

use crate::problem::{Problem, Reason};
use crate::reach::wait_for_gateways;
use crate::service::AuthService;

/// Every route of the HTTP API.
pub(crate) fn router(service: AuthService) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(account::jwks))
        .route("/auth/register", post(register::register))
        .route("/auth/login", post(login::login))
        .route("/auth/refresh", post(refresh::refresh))
        .route("/auth/logout", post(logout::logout))
        .route("/auth/logout-all", post(logout::logout_all))
        .route("/auth/me", get(account::me))
        .route("/auth/password", post(account::password))
        .route("/auth/sessions", get(sessions::list))
        .route("/auth/sessions/{id}", delete(sessions::end))
        .route("/auth/admin/users", get(admin::users))
        .route("/auth/admin/users/{id}/ban", put(admin::ban).delete(admin::unban))
        .route("/auth/admin/users/{id}/roles", put(admin::roles))
        .route(
            "/auth/admin/users/{id}/sessions",
            get(admin::sessions).delete(admin::end_sessions),
        )
        .route("/auth/admin/api-keys", get(api_keys::list).post(api_keys::make))
        .route("/auth/admin/api-keys/{id}", delete(api_keys::revoke))
        .route("/auth/admin/keys", get(keys::list))
        .route("/auth/admin/keys/rotate", post(keys::rotate))
        .route("/auth/admin/revocations", post(revocations::revoke))
        .route("/auth/admin/revocations/{run}", get(revocations::list))
        .route("/auth/admin/audit", get(audit::list))
        .route_layer(middleware::from_fn_with_state(service.clone(), admins_may_wait))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(service)
}

/// `?wait=` is the administrators': a wait holds a connection.
async fn admins_may_wait(state: State<AuthService>, request: Request, next: Next) -> Response {
    let revokes = request.uri().path().starts_with("/auth/admin/") && request.method() != Method::GET;
    match revokes {
        true => wait_for_gateways(state, request, next).await,
        false => next.run(request).await,
    }
}

pub(crate) async fn not_found() -> Problem {
    Problem::new(Reason::NotFound)
}

/// axum adds the Allow header that RFC 9110 section 15.5.6 asks for.
pub(crate) async fn method_not_allowed(_method: Method) -> Problem {
    Problem::new(Reason::MethodNotAllowed)
}
