//! `--wait`: how far a revocation has come among the gateways.

use serde_json::Value;

use super::text;
use crate::cli::Wait;
use crate::exit::Failure;

/// The path of a call that waits as long as was asked for.
pub fn waiting(path: &str, wait: &Wait) -> String {
    match &wait.wait {
        Some(within) => format!("{path}?wait={}", crate::control::client::segment(within)),
        None => path.to_owned(),
    }
}

/// What to say after `done`, once the gateways were asked.
pub fn told(done: String, answer: &Value) -> String {
    match answer.get("reach") {
        Some(reach) => format!("{done}\n{}", sentence(reach)),
        None => done,
    }
}

/// The end of a command that waited: it is a no where some gateway has not been heard of.
pub fn verdict(answer: &Value) -> Result<(), Failure> {
    let Some(reach) = answer.get("reach") else {
        return Ok(());
    };
    if reach["of"] == 0 {
        return Err(Failure::No(
            "it is durable, but no gateway is known to have heard of it".to_owned(),
        ));
    }
    if reach["refusing"] == reach["of"] {
        return Ok(());
    }
    let silent: Vec<&str> = silent(reach).collect();
    Err(Failure::No(format!(
        "it is durable, but these gateways have not answered in time: {}",
        silent.join(", ")
    )))
}

fn sentence(reach: &Value) -> String {
    let of = reach["of"].as_u64().unwrap_or_default();
    if of == 0 {
        return "no gateway is known to follow this auth service".to_owned();
    }
    format!(
        "refused on {} of {of} gateways after {} ms",
        reach["refusing"].as_u64().unwrap_or_default(),
        reach["took_ms"]
    )
}

fn silent(reach: &Value) -> impl Iterator<Item = &str> {
    reach["gateways"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|gateway| gateway["refuses"] == Value::Bool(false))
        .map(|gateway| text(gateway, "name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gateway_that_does_not_answer_is_named_and_a_no() {
        let all = json!({ "reach": { "refusing": 2, "of": 2, "took_ms": 4.2, "gateways": [] } });
        assert!(verdict(&all).is_ok());
        assert_eq!(
            told("done".into(), &all),
            "done\nrefused on 2 of 2 gateways after 4.2 ms"
        );
        let some = json!({ "reach": { "refusing": 1, "of": 2, "took_ms": 1000.0, "gateways": [
            { "name": "a", "refuses": true }, { "name": "b", "refuses": false } ] } });
        let said = verdict(&some).unwrap_err().to_string();
        assert!(said.ends_with("in time: b"), "{said}");
        let nobody = json!({ "reach": { "refusing": 0, "of": 0, "took_ms": 0.0, "gateways": [] } });
        assert!(verdict(&nobody).is_err());
        assert!(verdict(&json!({})).is_ok());
    }
}
