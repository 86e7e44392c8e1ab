//! `POST /explain` on the control socket: the running gateway's own answer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use durward_contract::UnixSeconds;
use durward_gateway::{ExplainRequest, Gateway};
use serde_json::{Value, json};

/// The route.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().route("/explain", post(explain)).with_state(gateway)
}

async fn explain(State(gateway): State<Arc<Gateway>>, Json(question): Json<Value>) -> Response {
    let answer = match request_of(&question) {
        Ok(request) => gateway.explain(&request).await,
        Err(detail) => Err(detail),
    };
    match answer {
        Ok(explanation) => Json(explanation).into_response(),
        Err(detail) => {
            let problem = json!({ "title": "Bad Request", "status": 400, "detail": detail });
            (StatusCode::BAD_REQUEST, Json(problem)).into_response()
        }
    }
}

/// A gateway alone has no accounts to ask about.
pub async fn not_here() -> Response {
    let detail = "this process runs no auth service";
    let problem = json!({ "title": "Not Found", "status": 404, "detail": detail, "reason": "not_found" });
    (StatusCode::NOT_FOUND, Json(problem)).into_response()
}

/// The question as `durward explain` writes it.
pub fn request_of(question: &Value) -> Result<ExplainRequest, String> {
    let text = |name: &str| question[name].as_str().map(str::to_owned);
    let headers = question["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|header| {
            let part = |index: usize| header[index].as_str().map(str::to_owned);
            part(0)
                .zip(part(1))
                .ok_or_else(|| "a header must be [name, value]".to_owned())
        });
    Ok(ExplainRequest {
        method: text("method").ok_or("`method` is missing")?,
        url: text("url").ok_or("`url` is missing")?,
        headers: headers.collect::<Result<_, _>>()?,
        token: text("token"),
        api_key: text("api_key"),
        claims: question["claims"]
            .as_object()
            .map(|claims| Value::Object(claims.clone()).to_string()),
        at: question["at"].as_i64().map(UnixSeconds),
    })
}
