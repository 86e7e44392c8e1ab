//! The outcomes as a table of Markdown.

use std::time::Duration;

use super::measure::Outcome;

/// One row an outcome.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = "| fault | known revoked: accepted | banned meanwhile: accepted, last after the acknowledgement | beyond the bound | valid: refused, for | recovered after |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
    for outcome in outcomes {
        text.push_str(&format!(
            "| {} | {} | {}, {} | {} | {}, {} | {} |\n",
            outcome.fault,
            outcome.known_accepted,
            outcome.accepted_after_ban,
            seconds(outcome.last_accepted),
            outcome.accepted_beyond_bound,
            outcome.valid_refused,
            seconds(outcome.refused_for),
            seconds(outcome.recovered_after),
        ));
    }
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
