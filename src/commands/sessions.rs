//! `durward sessions` and `durward keys`: what the running service holds.

use hyper::Method;
use serde_json::{Value, json};

use super::reach::{told, verdict, waiting};
use super::{print, table, text, time};
use crate::cli::{KeysCommand, SessionsArguments};
use crate::configuration::control_client;
use crate::control::client::segment;
use crate::exit::Failure;

/// Lists or ends a user's sessions.
pub async fn run(arguments: SessionsArguments) -> Result<(), Failure> {
    let service = control_client(&arguments.client.config)?;
    let path = format!("/users/{}/sessions", segment(&arguments.username));
    let json = arguments.client.json;
    if arguments.end_all {
        let path = waiting(&path, &arguments.wait);
        let answer = service.call(Method::DELETE, &path, None).await?;
        print(json, &answer, |answer| {
            told(
                format!("all sessions of {} are ended", arguments.username),
                answer,
            )
        });
        verdict(&answer)
    } else if let Some(session) = &arguments.end {
        let path = waiting(&format!("{path}/{}", segment(session)), &arguments.wait);
        let answer = service.call(Method::DELETE, &path, None).await?;
        print(json, &answer, |answer| {
            told(format!("session {session} is ended"), answer)
        });
        verdict(&answer)
    } else {
        let answer = service.call(Method::GET, &path, None).await?;
        print(json, &answer, listed);
        Ok(())
    }
}

/// Lists the signing keys, or changes the one that signs.
pub async fn keys(command: KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::List(client) => {
            let answer = control_client(&client.config)?
                .call(Method::GET, "/keys", None)
                .await?;
            print(client.json, &answer, listed_keys);
        }
        KeysCommand::Rotate(client) => {
            let answer = control_client(&client.config)?
                .call(Method::POST, "/keys/rotate", Some(json!({})))
                .await?;
            print(client.json, &answer, |answer| {
                format!(
                    "{} signs from now on; {} is published until {}",
                    text(answer, "signing"),
                    text(answer, "retiring"),
                    time::shown(answer, "until")
                )
            });
        }
    }
    Ok(())
}

fn listed_keys(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(key_row)
        .collect();
    table(&["KID", "ALGORITHM", "STATE", "UNTIL"], &rows)
}

fn listed(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["sessions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(session_row)
        .collect();
    table(
        &[
            "SESSION",
            "CREATED",
            "LAST USED",
            "ADDRESS",
            "USER AGENT",
            "STATE",
        ],
        &rows,
    )
}

fn session_row(session: &Value) -> Vec<String> {
    let state = if session["revoked"] == Value::Bool(true) {
        "ended"
    } else {
        "live"
    };
    let mut row: Vec<String> = vec![
        text(session, "id").to_owned(),
        time::shown(session, "created_at"),
        time::shown(session, "last_used_at"),
    ];
    row.extend(["client_address", "user_agent"].map(|name| text(session, name).to_owned()));
    row.push(state.to_owned());
    row
}

fn key_row(key: &Value) -> Vec<String> {
    let mut row = ["kid", "algorithm", "state"]
        .map(|name| text(key, name).to_owned())
        .to_vec();
    row.push(if key["until"].is_null() {
        String::new()
    } else {
        time::shown(key, "until")
    });
    row
}
