//! How far a revocation has come: `?wait=5s` on a call that revokes answers only when every gateway
//! has applied it, or says which have not.
//!
//! The call itself is done and durable by then; waiting changes nothing but what is known of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use durward_contract::{News, Sequence};
use serde_json::{Value, json};

use crate::problem::{Problem, Reason};
use crate::service::AuthService;

/// The longest that a call may wait.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Largest answer of a call that waits, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The gateways that follow the log, wherever they are.
pub trait Fleet: Send + Sync {
    /// Waits until all of them have applied the log up to `head`, for at most `within`.
    fn reach(&self, head: Sequence, within: Duration) -> Pin<Box<dyn Future<Output = Reach> + Send + '_>>;

    /// The log has grown: by this news, or by some that is not at hand where that is empty. Must return
    /// at once.
    fn committed(&self, news: &[News]);
}

/// Which gateways have applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Each known gateway.
    pub gateways: Vec<GatewayReach>,
    /// How long that took to find out.
    pub took: Duration,
}

/// What one gateway has applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayReach {
    /// What it calls itself.
    pub name: String,
    /// When it was seen to have applied it, counted from the question; nothing where it did not
    /// answer in time.
    pub after: Option<Duration>,
}

impl Reach {
    fn body(&self, head: Sequence) -> Value {
        let gateways: Vec<Value> = self
            .gateways
            .iter()
            .map(|gateway| {
                json!({
                    "name": gateway.name,
                    "refuses": gateway.after.is_some(),
                    "after_ms": gateway.after.map(milliseconds),
                })
            })
            .collect();
        let refusing = self
            .gateways
            .iter()
            .filter(|gateway| gateway.after.is_some())
            .count();
        json!({
            "sequence": head.0,
            "refusing": refusing,
            "of": gateways.len(),
            "took_ms": milliseconds(self.took),
            "gateways": gateways,
        })
    }
}

/// To the microsecond.
#[expect(clippy::cast_precision_loss, reason = "a wait is far below 2^52 microseconds")]
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Of a request with `?wait=`: answers once its effect has reached the gateways, and says so in the
/// member `reach`.
pub(crate) async fn wait_for_gateways(
    State(service): State<AuthService>,
    request: Request,
    next: Next,
) -> Response {
    let within = match wait_of(request.uri().query().unwrap_or_default()) {
        Ok(Some(within)) => within,
        Ok(None) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    };
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_ANSWER_BYTES).await else {
        return Problem::new(Reason::Internal).into_response();
    };
    let (head, reach) = service.reach(within).await;
    let mut answer = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(members)) => Value::Object(members),
        // What says nothing, or no object, is left as it is.
        _ => return Response::from_parts(parts, Body::from(bytes)),
    };
    answer["reach"] = reach.body(head);
    Response::from_parts(parts, Body::from(answer.to_string()))
}

/// The one `wait` of a query.
fn wait_of(query: &str) -> Result<Option<Duration>, Problem> {
    let mut waits = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("wait="))
        .map(|text| parse_wait(text).ok_or_else(|| Problem::new(Reason::InvalidQuery)));
    let first = waits.next().transpose()?;
    match waits.next() {
        Some(_) => Err(Problem::new(Reason::InvalidQuery)),
        None => Ok(first),
    }
}

/// `250ms` or `5s`, at most [`MAX_WAIT`].
fn parse_wait(text: &str) -> Option<Duration> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let wait = match text.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(number(digits)?.into()),
        None => Duration::from_secs(number(text.strip_suffix('s')?)?.into()),
    };
    (wait <= MAX_WAIT).then_some(wait)
}

/// The gateways of nobody: none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoFleet;

impl Fleet for NoFleet {
    fn reach(&self, _head: Sequence, _within: Duration) -> Pin<Box<dyn Future<Output = Reach> + Send + '_>> {
        Box::pin(std::future::ready(Reach::default()))
    }

    fn committed(&self, _news: &[News]) {}
}

impl fmt::Debug for dyn Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_short_and_said_once() {
        for (query, expected) in [
            ("", Some(None)),
            ("after=x", Some(None)),
            ("wait=250ms", Some(Some(Duration::from_millis(250)))),
            ("a=b&wait=30s", Some(Some(MAX_WAIT))),
            ("wait=31s", None),
            ("wait=", None),
            ("wait=5", None),
            ("wait=-1s", None),
            ("wait=+1s", None),
            ("wait=1s&wait=1s", None),
            ("wait=99999999999s", None),
        ] {
            assert_eq!(wait_of(query).ok(), expected, "{query}");
        }
    }

    #[test]
    fn who_does_not_answer_is_named() {
        let reach = Reach {
            gateways: vec![
                GatewayReach {
                    name: "a".into(),
                    after: Some(Duration::from_micros(1500)),
                },
                GatewayReach {
                    name: "b".into(),
                    after: None,
                },
            ],
            took: Duration::from_secs(1),
        };
        let body = reach.body(Sequence(7));
        assert_eq!(
            (body["refusing"].as_u64(), body["of"].as_u64()),
            (Some(1), Some(2))
        );
        assert_eq!(body["gateways"][0]["after_ms"], 1.5);
        assert_eq!(body["gateways"][1]["refuses"], false);
        assert_eq!(body["gateways"][1]["after_ms"], Value::Null);
    }
}
