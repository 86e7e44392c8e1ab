//! `durward check`: every error and warning of a configuration file at once.

use durward_config::{Diagnostic, Severity};
use serde_json::{Value, json};

use super::say;
use crate::cli::CheckArguments;
use crate::configuration::{self, Loaded};
use crate::exit::Failure;

/// Checks a file and prints what was found.
pub fn run(arguments: &CheckArguments) -> Result<(), Failure> {
    let (loaded, diagnostics) = configuration::load(&arguments.config)?;
    let found: Vec<Value> = diagnostics.iter().map(as_json).collect();
    if arguments.json {
        say(format_args!(
            "{:#}",
            json!({ "valid": loaded.is_some(), "diagnostics": found })
        ));
    } else {
        diagnostics.to_string().lines().for_each(say);
    }
    match loaded {
        Some(loaded) => {
            if !arguments.json {
                say(format_args!(
                    "{}: {}",
                    arguments.config.display(),
                    summary(&loaded, found.len())
                ));
            }
            Ok(())
        }
        None => Err(Failure::No(format!(
            "{}: cannot be used",
            arguments.config.display()
        ))),
    }
}

fn summary(loaded: &Loaded, warnings: usize) -> String {
    let routes = loaded.policy.routes().len();
    let issuers = loaded.policy.issuers().len();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!(
        "ok, {}, {}, {}",
        plural(routes, "route"),
        plural(issuers, "issuer"),
        plural(warnings, "warning")
    )
}

fn as_json(item: &Diagnostic) -> Value {
    let severity = match item.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({
        "severity": severity,
        "line": item.place.line,
        "column": item.place.column,
        "message": item.message,
        "advice": item.advice,
    })
}
