//! `POST /reload` on the control socket.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use crate::reload::{Reloader, Trigger};

/// The route.
pub fn router(reloader: Reloader) -> Router {
    Router::new().route("/reload", post(reload)).with_state(reloader)
}

/// A refusal is an answer too: the command reads of it what is wrong.
async fn reload(State(reloader): State<Reloader>, Json(form): Json<Value>) -> Json<Value> {
    let dry_run = form["check"].as_bool().unwrap_or(false);
    Json(reloader.reload(Trigger::Command, dry_run).await)
}
