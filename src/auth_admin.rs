//! The admin listener of an auth service that runs alone: health and metrics, for whoever watches it.
//! Beside a gateway, the gateway's shows them.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use durward_auth::AuthService;
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;

use crate::exit::Failure;
use crate::shutdown::Shutdown;

#[derive(Clone)]
struct Watched {
    service: AuthService,
    registry: Registry,
}

/// Answers `/livez`, `/readyz` and `/metrics` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    service: AuthService,
    registry: Registry,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Watched { service, registry });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.requested())
        .await
        .map_err(Failure::failed)
}

async fn ready(State(watched): State<Watched>) -> Response {
    let ready = watched.service.is_ready();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let missing = match ready {
        true => json!([]),
        false => json!(["an answer of the database"]),
    };
    let body = json!({ "ready": ready, "missing": missing });
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{body}\n"),
    )
        .into_response()
}

async fn metrics(State(watched): State<Watched>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&watched.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be told");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
