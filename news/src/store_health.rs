//! Whether a Redis keeps what it is given.

use redis::{Value, cmd};

use crate::dial::Node;
use crate::protocol::read;
use crate::store_error::{StoreError, StoreFault};

/// The only policy under which a full Redis refuses instead of forgetting.
const KEEPING: &str = "noeviction";

/// What Redis says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// How many keys it has evicted since it started.
    pub evicted: u64,
}

/// Asks. An error is any reason for which it cannot be trusted to keep entries, not knowing included.
pub(crate) async fn ask(node: &mut Node) -> Result<Health, StoreError> {
    let info = match node.ask(&cmd("INFO")).await {
        Ok(reply) => read::<String>(reply)?,
        Err(error) if error.fault == StoreFault::Login => String::new(),
        Err(error) => return Err(error),
    };
    let policy = match field(&info, "maxmemory_policy") {
        Some(policy) => policy.to_owned(),
        None => ask_config(node).await?,
    };
    if policy != KEEPING {
        return Err(StoreError::new(
            StoreFault::Evicting,
            format_args!(
                "maxmemory-policy is {policy}, under which revocations would be dropped: \
                 set it to {KEEPING}, or give Durward a Redis of its own"
            ),
        ));
    }
    let evicted = field(&info, "evicted_keys").and_then(|count| count.parse().ok());
    Ok(Health {
        evicted: evicted.unwrap_or(0),
    })
}

async fn ask_config(node: &mut Node) -> Result<String, StoreError> {
    let mut command = cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy");
    let unknown = || {
        StoreError::new(
            StoreFault::Evicting,
            "maxmemory-policy cannot be read: allow INFO to this user",
        )
    };
    match node.ask(&command).await {
        Ok(Value::Array(parts)) => match parts.into_iter().nth(1) {
            Some(policy) => read(policy),
            None => Err(unknown()),
        },
        Ok(_) => Err(unknown()),
        Err(error) if error.fault == StoreFault::Login => Err(unknown()),
        Err(error) => Err(error),
    }
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_info_are_found_whole() {
        let info = "# Memory\r\nmaxmemory_policy:noeviction\r\nmaxmemory:0\r\n\r\nevicted_keys:3\r\n";
        assert_eq!(field(info, "maxmemory_policy"), Some("noeviction"));
        assert_eq!(field(info, "maxmemory"), Some("0"));
        assert_eq!(field(info, "evicted_keys"), Some("3"));
        assert_eq!(field(info, "evicted"), None);
    }
}
