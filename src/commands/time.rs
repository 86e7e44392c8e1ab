//! Instants as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::exit::Failure;

/// Reads an instant, RFC 3339 in UTC or seconds since 1970, that was given with `flag`.
pub fn parse(flag: &str, text: &str) -> Result<i64, Failure> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    humantime::parse_rfc3339_weak(text)
        .ok()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .ok_or_else(|| {
            Failure::Usage(format!(
                "{flag} must be like 2030-01-31T12:00:00Z, and this is `{text}`"
            ))
        })
}

/// A member that holds seconds since 1970, for people.
pub fn shown(value: &Value, name: &str) -> String {
    let seconds = value[name].as_u64().unwrap_or_default();
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(parse("--at", "0").unwrap(), 0);
        assert_eq!(parse("--at", "1970-01-02T00:00:00Z").unwrap(), 86400);
        let Err(Failure::Usage(said)) = parse("--since", "tomorrow") else {
            panic!("tomorrow is no instant");
        };
        assert!(said.starts_with("--since must be like"), "{said}");
    }
}
