//! `durward explain`: why a request is permitted or refused, by the same decision.

use hyper::Method;
use serde_json::{Value, json};

use super::token::read_token;
use super::{print, time};
use crate::cli::ExplainArguments;
use crate::configuration;
use crate::control::client::ControlClient;
use crate::exit::Failure;

/// Explains a request; a refusal is exit code 1.
pub async fn run(arguments: ExplainArguments) -> Result<(), Failure> {
    let question = question(&arguments)?;
    let socket = configuration::control_socket(&arguments.client.config)?;
    let answer = match ControlClient::new(&socket)
        .call(Method::POST, "/explain", Some(question.clone()))
        .await
    {
        Err(Failure::Unreachable(_)) => {
            configuration::explain_from_file(&arguments.client.config, &question)?
        }
        answer => answer?,
    };
    print(arguments.client.json, &answer, human);
    if answer["verdict"] == "permit" {
        return Ok(());
    }
    Err(Failure::No(format!(
        "refused: {}",
        answer["reason"].as_str().unwrap_or("unknown")
    )))
}

fn question(arguments: &ExplainArguments) -> Result<Value, Failure> {
    let token = arguments.token.as_deref().map(read_token).transpose()?;
    let api_key = arguments.api_key.as_deref().map(read_api_key).transpose()?;
    let claims = arguments.claims.as_deref().map(parse_claims).transpose()?;
    let headers: Result<Vec<Value>, Failure> = arguments
        .headers
        .iter()
        .map(|header| parse_header(header))
        .collect();
    let at = arguments
        .at
        .as_deref()
        .map(|text| time::parse("--at", text))
        .transpose()?;
    Ok(json!({
        "method": arguments.method,
        "url": arguments.url,
        "token": token,
        "api_key": api_key,
        "claims": claims,
        "headers": headers?,
        "at": at,
    }))
}

/// An API key holds for months: it has no business among a process's arguments.
fn read_api_key(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        let message = "--api-key reads the key from standard input: write `--api-key -`";
        return Err(Failure::Usage(message.into()));
    }
    read_token(argument)
}

fn parse_claims(text: &str) -> Result<Value, Failure> {
    match serde_json::from_str(text) {
        Ok(claims @ Value::Object(_)) => Ok(claims),
        Ok(_) => Err(Failure::Usage("--claims must be a JSON object".into())),
        Err(error) => Err(Failure::Usage(format!("--claims is not JSON: {error}"))),
    }
}

fn parse_header(header: &str) -> Result<Value, Failure> {
    let (name, value) = header
        .split_once(':')
        .ok_or_else(|| Failure::Usage(format!("--header must be `Name: value`, and this is `{header}`")))?;
    Ok(json!([name.trim(), value.trim()]))
}

fn human(answer: &Value) -> String {
    let member = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = Vec::new();
    for step in answer["steps"].as_array().into_iter().flatten() {
        let place = match step["place"].as_str() {
            Some(place) => format!("  (line {place})"),
            None => String::new(),
        };
        let detail = match step["detail"].as_str() {
            Some(detail) if !detail.is_empty() => format!(": {detail}"),
            _ => String::new(),
        };
        let (phase, outcome) = (member(step, "phase"), member(step, "outcome"));
        lines.push(format!(
            "{phase:<11} {outcome:<8} {}{detail}{place}",
            member(step, "what")
        ));
    }
    lines.push(verdict(answer));
    if let Some(note) = answer["note"].as_str() {
        lines.push(format!("note: {note}"));
    }
    lines.join("\n")
}

fn verdict(answer: &Value) -> String {
    if answer["verdict"] != "permit" {
        return format!(
            "=> {} {}",
            answer["status"],
            answer["reason"].as_str().unwrap_or_default()
        );
    }
    let mut lines = vec![format!(
        "=> permitted, to upstream {}",
        answer["upstream"].as_str().unwrap_or_default()
    )];
    for header in answer["identity_headers"].as_array().into_iter().flatten() {
        let part = |index: usize| header[index].as_str().unwrap_or_default();
        lines.push(format!("   {}: {}", part(0), part(1)));
    }
    lines.join("\n")
}
