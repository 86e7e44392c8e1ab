//! `GET /api/me`: the identity that reached this server.

use axum::{Json, extract::Request};
use serde::Serialize;

use super::user::User;

/// Who the gateway says is asking, and what of their request arrived.
#[derive(Debug, Serialize)]
pub(super) struct Me {
    #[serde(flatten)]
    user: User,
    request: Arrived,
}

/// What a backend can see of a request. Names of headers only: a value could
/// be a secret, and one look at the names tells whether one came through.
#[derive(Debug, Serialize)]
struct Arrived {
    method: String,
    path: String,
    headers: Vec<String>,
}

/// Answers with the user and the request as this server sees them.
pub(super) async fn me(user: User, request: Request) -> Json<Me> {
    let names = request.headers().keys().map(ToString::to_string);
    let mut headers: Vec<String> = names.collect();
    headers.sort_unstable();
    Json(Me {
        user,
        request: Arrived {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            headers,
        },
    })
}
