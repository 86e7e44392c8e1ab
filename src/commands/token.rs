//! `durward token inspect`: what stands in a token, without judging it.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::print;
use crate::exit::Failure;

/// Longest text that is read as a token, in bytes.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Decodes and prints a token.
pub fn inspect(token: &str, as_json: bool) -> Result<(), Failure> {
    let token = read_token(token)?;
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return Err(Failure::No(format!(
            "not a signed JWT: {} parts instead of 3",
            parts.len()
        )));
    };
    let signature = decode("signature", signature)?;
    let answer = json!({
        "header": decode_object("header", header)?,
        "claims": decode_object("claims", payload)?,
        "signature_bytes": signature.len(),
        "verified": false,
    });
    print(as_json, &answer, human);
    Ok(())
}

/// The token itself, or what standard input holds where it is `-`.
pub fn read_token(token: &str) -> Result<String, Failure> {
    if token != "-" {
        return Ok(token.trim().to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_TOKEN_BYTES)
        .read_to_string(&mut text)
        .map_err(Failure::failed)?;
    Ok(text.trim().to_owned())
}

fn decode(what: &str, part: &str) -> Result<Vec<u8>, Failure> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|error| Failure::No(format!("the {what} is not base64url: {error}")))
}

fn decode_object(what: &str, part: &str) -> Result<Map<String, Value>, Failure> {
    let bytes = decode(what, part)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::No(format!("the {what} is not a JSON object: {error}")))
}

fn human(answer: &Value) -> String {
    let mut lines = vec!["Not verified: anyone can write a token like this.".to_owned()];
    for part in ["header", "claims"] {
        lines.push(format!("{part}:"));
        for (name, value) in answer[part].as_object().into_iter().flatten() {
            lines.push(format!("  {name}: {value}{}", as_date(name, value)));
        }
    }
    lines.push(format!("signature: {} bytes", answer["signature_bytes"]));
    lines.join("\n")
}

fn as_date(name: &str, value: &Value) -> String {
    let seconds = match (name, value.as_u64()) {
        ("exp" | "iat" | "nbf" | "auth_time", Some(seconds)) if seconds < 253_402_300_800 => seconds,
        _ => return String::new(),
    };
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    format!("  ({})", humantime::format_rfc3339_seconds(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_token_is_said_to_be_none() {
        for bad in ["", "a.b", "a.b.c.d.e", "!.!.!", "bm90anNvbg.e30.", "W10.e30."] {
            assert!(inspect(bad, true).is_err(), "{bad}");
        }
        inspect("eyJhbGciOiJub25lIn0.eyJleHAiOjF9.", true).unwrap();
    }
}
