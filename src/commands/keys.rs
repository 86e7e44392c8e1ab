//! `durward keys …`: the keys that sign access tokens.

use hyper::Method;
use serde_json::{Value, json};

use super::reach::{told, verdict, waiting};
use super::{print, table, text, time};
use crate::cli::{KeysCommand, RotateArguments};
use crate::configuration::control_client;
use crate::exit::Failure;

/// Lists the signing keys, or changes the one that signs.
pub async fn run(command: KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::List(client) => {
            let answer = control_client(&client.config)?
                .call(Method::GET, "/keys", None)
                .await?;
            print(client.json, &answer, listed);
            Ok(())
        }
        KeysCommand::Rotate(arguments) => rotate(arguments).await,
    }
}

async fn rotate(arguments: RotateArguments) -> Result<(), Failure> {
    let RotateArguments {
        now,
        revoke,
        reason,
        wait,
        client,
    } = arguments;
    if wait.wait.is_some() && !revoke {
        return Err(Failure::Usage(
            "--wait is for --revoke: without it there is nothing that gateways could refuse".into(),
        ));
    }
    let form = json!({ "now": now, "revoke": revoke, "reason": reason });
    let answer = control_client(&client.config)?
        .call(Method::POST, &waiting("/keys/rotate", &wait), Some(form))
        .await?;
    print(client.json, &answer, |answer| told(rotated(answer), answer));
    verdict(&answer)
}

fn rotated(answer: &Value) -> String {
    let signing = text(answer, "signing");
    if !answer["announced"].is_null() {
        return format!(
            "{} is announced, and signs from {}; {signing} signs until then",
            text(answer, "announced"),
            time::shown(answer, "signs_from")
        );
    }
    if !answer["signing_key"].is_null() {
        return format!(
            "{signing} signs from now on; {} is refused, for ever; sessions go on",
            text(answer, "signing_key")
        );
    }
    format!(
        "{signing} signs from now on; {} is published until {}",
        text(answer, "retiring"),
        time::shown(answer, "until")
    )
}

fn listed(answer: &Value) -> String {
    let keys = answer["keys"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = keys.map(row).collect();
    table(&["KID", "ALGORITHM", "STATE", "FROM", "UNTIL"], &rows)
}

fn row(key: &Value) -> Vec<String> {
    let mut row = ["kid", "algorithm", "state"]
        .map(|name| text(key, name).to_owned())
        .to_vec();
    row.extend(["signs_from", "until"].map(|name| match key[name].is_null() {
        true => String::new(),
        false => time::shown(key, name),
    }));
    row
}
