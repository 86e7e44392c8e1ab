//! `durward user …`, `durward ban`, `durward unban`: accounts, through the control socket.

use hyper::Method;
use serde_json::{Value, json};

use super::reach::{told, verdict, waiting};
use super::{print, table, text};
use crate::cli::{BanArguments, UserArguments, UserCommand};
use crate::configuration::control_client;
use crate::control::client::segment;
use crate::exit::Failure;

/// Runs a `user` command.
pub async fn run(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add {
            username,
            roles,
            password_stdin,
            client,
        } => {
            let password = if password_stdin {
                Some(password_from_stdin()?)
            } else {
                None
            };
            let body = json!({ "username": username, "roles": roles, "password": password });
            let answer = control_client(&client.config)?
                .call(Method::POST, "/users", Some(body))
                .await?;
            print(client.json, &answer, added);
        }
        UserCommand::List(client) => {
            let answer = control_client(&client.config)?
                .call(Method::GET, "/users", None)
                .await?;
            print(client.json, &answer, listed);
        }
        UserCommand::Role {
            username,
            add,
            remove,
            wait,
            client,
        } => {
            let path = waiting(&format!("/users/{}/roles", segment(&username)), &wait);
            let body = json!({ "add": add, "remove": remove });
            let answer = control_client(&client.config)?
                .call(Method::POST, &path, Some(body))
                .await?;
            print(client.json, &answer, |answer| {
                told(format!("{}: {}", username, roles(answer)), answer)
            });
            verdict(&answer)?;
        }
    }
    Ok(())
}

/// Bans a user. When this returns the ban is durable, and a gateway in the service's process refuses
/// them.
pub async fn ban(arguments: BanArguments) -> Result<(), Failure> {
    let path = format!("/users/{}/ban", segment(&arguments.username));
    let path = waiting(&path, &arguments.wait);
    let body = json!({ "reason": arguments.reason });
    let answer = control_client(&arguments.client.config)?
        .call(Method::PUT, &path, Some(body))
        .await?;
    print(arguments.client.json, &answer, |answer| {
        told(format!("{} is banned", arguments.username), answer)
    });
    verdict(&answer)
}

/// Lifts a ban.
pub async fn unban(arguments: UserArguments) -> Result<(), Failure> {
    let path = format!("/users/{}/ban", segment(&arguments.username));
    let answer = control_client(&arguments.client.config)?
        .call(Method::DELETE, &path, None)
        .await?;
    print(arguments.client.json, &answer, |_| {
        format!(
            "{} may log in again; tokens from before stay refused",
            arguments.username
        )
    });
    Ok(())
}

fn password_from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn added(user: &Value) -> String {
    let mut said = format!(
        "added {} with id {} and roles [{}]",
        text(user, "username"),
        text(user, "id"),
        roles(user)
    );
    if let Some(password) = user.get("password").and_then(Value::as_str) {
        said.push_str(&format!("\npassword (shown once): {password}"));
    }
    said
}

fn listed(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["users"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    table(&["USERNAME", "ID", "ROLES", "BANNED"], &rows)
}

fn row(user: &Value) -> Vec<String> {
    let banned = if user["banned"] == Value::Bool(true) {
        "yes"
    } else {
        ""
    };
    vec![
        text(user, "username").to_owned(),
        text(user, "id").to_owned(),
        roles(user),
        banned.to_owned(),
    ]
}

fn roles(user: &Value) -> String {
    let roles = user["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    roles.collect::<Vec<_>>().join(", ")
}
