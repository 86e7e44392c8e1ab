//! `durward sessions`: what a user has open, and its end.

use hyper::Method;
use serde_json::Value;

use super::reach::{told, verdict, waiting};
use super::{print, table, text, time};
use crate::cli::SessionsArguments;
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
