//! The cases of HTTP/2, frame by frame.

use durward_testing::http2::{Frame, Http2, Outcome, header_block};
use serde_json::Value;

use super::{SILENCE, USER, text};
use crate::harness::{Backend, Recorded, Service};

/// The fields of a case, with the user's token where it says nothing of one.
fn fields_of(case: &Value, user_token: &str) -> Vec<(String, String)> {
    let listed = case["h2_headers"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut fields: Vec<_> = listed
        .iter()
        .map(|field| (word(&field[0]), word(&field[1])))
        .collect();
    if text(case, "id") == "h2-hdr-70k" {
        // The file holds the first of them.
        fields.extend((fields.len()..70).map(|n| (format!("x-more-{n}"), "a".repeat(1_000))));
    }
    fields.push(("authorization".into(), format!("Bearer {user_token}")));
    fields
}

/// Tries a case on a connection of its own; the error tells what came instead.
pub(super) fn attempt(
    case: &Value,
    user_token: &str,
    service: &Service,
    backend: &Backend,
) -> Result<(), String> {
    let fields = fields_of(case, user_token);
    let borrowed: Vec<_> = fields
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    let body = case["h2_body"].as_str();
    let mut connection = Http2::open(service.edge, SILENCE).map_err(|error| error.to_string())?;
    let stream = connection.new_stream();
    let mut frames = Frame::header_section(stream, header_block(&borrowed), body.is_none());
    frames.extend(body.map(|body| Frame::data(stream, body, true)));
    for frame in &frames {
        // Whoever has refused it already need not take the rest.
        if connection.send(frame).is_err() {
            break;
        }
    }
    let outcome = connection.outcome(stream).map_err(|error| error.to_string())?;
    let seen = backend.take();
    judge(case, &outcome, &seen).map_err(|why| format!("{why}\n    {outcome:?}, forwarded {seen:?}"))
}

fn judge(case: &Value, outcome: &Outcome, seen: &[Recorded]) -> Result<(), String> {
    let expected = text(case, "expected");
    let is_reset = !matches!(outcome, Outcome::Response { .. });
    let status = match outcome {
        Outcome::Response { status, .. } => *status,
        _ => 0,
    };
    let refused_with = |statuses: &[u16]| seen.is_empty() && statuses.contains(&status);
    let is_reset = is_reset && seen.is_empty();
    let well = match expected.as_str() {
        "200" | "stripped" => is_forwarded(status, seen),
        // What is malformed may also be answered with a 400 (RFC 9113 section 8.1.1).
        "stream error PROTOCOL_ERROR" | "stream error" => is_reset || refused_with(&[400]),
        "stream error or trimmed" => {
            let trimmed = || seen[0].headers().contains(&("x-a".into(), "a".into()));
            is_reset || refused_with(&[400]) || (is_forwarded(status, seen) && trimmed())
        }
        "400" | "400/stream error" | "400 unless OPTIONS" | "normalised/400" => {
            is_reset || refused_with(&[400])
        }
        "405/stream error" => is_reset || refused_with(&[405]),
        "431/refused" => is_reset || refused_with(&[431]),
        "body framed or 400" => {
            let body = case["h2_body"].as_str().unwrap_or_default();
            refused_with(&[400]) || (is_forwarded(status, seen) && is_framed(&seen[0], body))
        }
        _ => return Err(format!("it is not known what this means: {expected}")),
    };
    if well {
        Ok(())
    } else {
        Err(format!("not as expected: {expected}"))
    }
}

/// One request arrived, as the user's and nobody else's.
fn is_forwarded(status: u16, seen: &[Recorded]) -> bool {
    let is_user = |request: &Recorded| {
        let names = ["x-user-id", "x-gw-user"];
        names.into_iter().all(|name| {
            let values: Vec<_> = request
                .aliases(name)
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            values == [USER]
        })
    };
    status == 200 && seen.len() == 1 && is_user(&seen[0])
}

/// The body arrived as one, in whichever framing.
fn is_framed(request: &Recorded, body: &str) -> bool {
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n").to_lowercase();
    let arrived = String::from_utf8_lossy(&request.body);
    let with_length = request.values("content-length") == [length.to_string()] && arrived == body;
    with_length || (request.values("transfer-encoding") == ["chunked"] && arrived.to_lowercase() == chunked)
}
