//! `durward apikey …`: API keys of services, through the control socket.

use hyper::Method;
use serde_json::{Value, json};

use super::reach::{told, verdict, waiting};
use super::{print, table, text};
use crate::cli::ApikeyCommand;
use crate::configuration::control_client;
use crate::control::client::segment;
use crate::exit::Failure;

/// Where a column has nothing to say.
const NONE: &str = "-";

/// Runs an `apikey` command. When one that makes or revokes returns, the gateway in the service's
/// process has applied it.
pub async fn run(command: ApikeyCommand) -> Result<(), Failure> {
    match command {
        ApikeyCommand::Create {
            service,
            scopes,
            expires,
            certificate,
            client,
        } => {
            let body = json!({
                "service": service,
                "scopes": scopes,
                "expires_in": expires_in(&expires)?,
                "certificate": certificate,
            });
            let answer = control_client(&client.config)?
                .call(Method::POST, "/api-keys", Some(body))
                .await?;
            print(client.json, &answer, made);
        }
        ApikeyCommand::List(client) => {
            let answer = control_client(&client.config)?
                .call(Method::GET, "/api-keys", None)
                .await?;
            print(client.json, &answer, listed);
        }
        ApikeyCommand::Revoke { id, wait, client } => {
            let path = waiting(&format!("/api-keys/{}", segment(&id)), &wait);
            let answer = control_client(&client.config)?
                .call(Method::DELETE, &path, None)
                .await?;
            print(client.json, &answer, |key| {
                told(format!("key {id} of {} is revoked", text(key, "service")), key)
            });
            verdict(&answer)?;
        }
    }
    Ok(())
}

/// Seconds, or `never`.
fn expires_in(text: &str) -> Result<Value, Failure> {
    if text == "never" {
        return Ok(json!(text));
    }
    match humantime::parse_duration(text) {
        Ok(duration) => Ok(json!(duration.as_secs())),
        Err(_) => Err(Failure::Usage(format!(
            "--expires must be like 90d or 12h, or `never`, and this is `{text}`"
        ))),
    }
}

fn made(key: &Value) -> String {
    let proof = match key["certificate"].as_str() {
        Some(name) => format!("client certificate: {name}"),
        None => format!("key (shown once): {}", text(key, "key")),
    };
    format!(
        "made key {} of {} with scopes [{}], {}\n{proof}",
        text(key, "id"),
        text(key, "service"),
        scopes(key),
        match key["expires_at"].as_i64() {
            Some(end) => format!("valid until {}", moment(end)),
            None => "without an end".to_owned(),
        },
    )
}

fn listed(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["api_keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    let columns = [
        "SERVICE", "ID", "KIND", "NAME", "SCOPES", "STATE", "EXPIRES", "REVOKED", "MADE BY",
    ];
    table(&columns, &rows)
}

fn row(key: &Value) -> Vec<String> {
    let moment_or = |name: &str, without: &str| key[name].as_i64().map_or(without.to_owned(), moment);
    vec![
        text(key, "service").to_owned(),
        text(key, "id").to_owned(),
        text(key, "kind").to_owned(),
        key["certificate"].as_str().unwrap_or(NONE).to_owned(),
        scopes(key),
        text(key, "state").to_owned(),
        moment_or("expires_at", "never"),
        moment_or("revoked_at", NONE),
        text(key, "created_by").to_owned(),
    ]
}

fn scopes(key: &Value) -> String {
    let scopes = key["scopes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    scopes.collect::<Vec<_>>().join(" ")
}

fn moment(seconds: i64) -> String {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_durations_or_never() {
        assert_eq!(expires_in("90d").unwrap(), json!(90 * 86_400));
        assert_eq!(expires_in("1h 30m").unwrap(), json!(5400));
        assert_eq!(expires_in("never").unwrap(), json!("never"));
        for bad in ["", "90", "soon", "-1d", "Never"] {
            assert!(expires_in(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(moment(86_400), "1970-01-02T00:00:00Z");
    }
}
