//! `durward audit`: who did what to whom, when and why.

use hyper::Method;
use serde_json::{Value, json};

use super::{print, table, text, time};
use crate::cli::AuditArguments;
use crate::configuration::control_client;
use crate::control::client::segment;
use crate::exit::Failure;

/// Rows that are asked for at a time.
const PAGE: u32 = 1000;

/// Prints the audit trail, the oldest first.
pub async fn run(arguments: AuditArguments) -> Result<(), Failure> {
    let since = match &arguments.since {
        Some(text) => time::parse("--since", text)?,
        None => 0,
    };
    let action = arguments.action.as_deref().map(segment);
    let action = action.map_or_else(String::new, |action| format!("&action={action}"));
    let service = control_client(&arguments.client.config)?;
    let (mut entries, mut after) = (Vec::<Value>::new(), 0);
    loop {
        let path = format!("/audit?since={since}&after={after}&limit={PAGE}{action}");
        let mut page = service.call(Method::GET, &path, None).await?;
        if let Some(listed) = page["audit"].as_array_mut() {
            entries.append(listed);
        }
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    print(arguments.client.json, &json!({ "audit": entries }), human);
    Ok(())
}

fn human(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["audit"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    table(&["TIME", "ACTOR", "ACTION", "TARGET", "DETAIL"], &rows)
}

fn row(entry: &Value) -> Vec<String> {
    let actor = match text(entry, "actor_name") {
        "" => text(entry, "actor"),
        name => name,
    };
    let detail = match &entry["detail"] {
        Value::String(said) => said.clone(),
        detail => detail.to_string(),
    };
    vec![
        time::shown(entry, "at"),
        actor.to_owned(),
        text(entry, "action").to_owned(),
        text(entry, "target").to_owned(),
        detail,
    ]
}
