//! Error answers: problem details (RFC 9457).

use std::{borrow::Cow, fmt::Display};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// Seconds in the `Retry-After` of an answer that says "busy".
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error answer: a status, a stable code for programs, a sentence for people.
///
/// The type stays `about:blank`, so the title is the phrase of the status
/// (RFC 9457, section 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
}

impl Problem {
    /// A problem with this status, code and detail.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }

    /// 500: the cause goes to the log, the client learns only that it failed.
    pub(crate) fn internal(doing: &'static str, cause: &dyn Display) -> Self {
        tracing::error!(%cause, "failed while {doing}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the server failed to answer; its log says why",
        )
    }

    /// 503: a limit on concurrent work is reached; trying again will help.
    pub(crate) fn busy(what: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", what)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// The answer to a path that no route has.
pub(crate) async fn no_such_path() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_path",
        "this server has nothing at this path",
    )
}

/// The answer to a method that the path does not have; axum adds `Allow`.
pub(crate) async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        "this path does not take this method; the Allow header lists those it takes",
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_says_what_rfc_9457_asks() {
        let response = Problem::busy("too much at once").into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "about:blank",
                "title": "Service Unavailable",
                "status": 503,
                "code": "busy",
                "detail": "too much at once",
            })
        );
    }

    #[tokio::test]
    async fn an_internal_cause_is_not_told_to_the_client() {
        let response = Problem::internal("reading", &"/srv/secret: denied").into_response();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}
