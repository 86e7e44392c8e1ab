//! `durward reload`: the running gateway takes over its configuration file again.

use hyper::Method;
use serde_json::{Value, json};

use super::print;
use crate::cli::ReloadArguments;
use crate::configuration::control_client;
use crate::exit::Failure;

/// Asks for it, and says what changed or all that is wrong.
pub async fn run(arguments: ReloadArguments) -> Result<(), Failure> {
    let ReloadArguments { check, client } = arguments;
    let form = json!({ "check": check });
    let answer = control_client(&client.config)?
        .call(Method::POST, "/reload", Some(form))
        .await?;
    if answer["result"] == "refused" {
        if client.json {
            print(true, &answer, |_| String::new());
        }
        return Err(Failure::No(refused(&answer)));
    }
    print(client.json, &answer, taken_over);
    Ok(())
}

fn refused(answer: &Value) -> String {
    let lines = lines(answer, "errors", "  ");
    format!(
        "the configuration is refused; the one before it runs on\n{}",
        lines.join("\n")
    )
}

fn taken_over(answer: &Value) -> String {
    let mut said = vec![format!(
        "{}, generation {}",
        answer["result"].as_str().unwrap_or_default(),
        answer["generation"]
    )];
    for (kind, sign) in [("added", "+ "), ("removed", "- "), ("changed", "~ ")] {
        said.extend(lines(answer, kind, sign));
    }
    let (kept, ended) = (&answer["streams_kept"], &answer["streams_ended"]);
    if *kept != 0 || *ended != 0 {
        said.push(format!("open requests: {kept} go on, {ended} ended"));
    }
    said.join("\n")
}

fn lines(answer: &Value, name: &str, sign: &str) -> Vec<String> {
    let items = answer[name].as_array().into_iter().flatten();
    items
        .filter_map(Value::as_str)
        .map(|item| format!("{sign}{item}"))
        .collect()
}
