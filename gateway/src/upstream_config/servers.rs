//! `servers:` and `balance:`: which servers an upstream has, and which of them a request goes to.

use std::net::SocketAddr;

use durward_config::{Diagnostics, Node, Value};

/// The most servers of an upstream.
pub(crate) const MAX_SERVERS: usize = 256;
/// The largest weight of a server.
const MAX_WEIGHT: i64 = 100;

/// A server of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the requests, in proportion to the others' (1 to 100).
    pub weight: u32,
}

/// How a server is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest open requests for its weight.
    LeastConnections,
    /// The same for all requests of a user; of a client address where nobody is logged in.
    UserHash,
}

impl Balance {
    pub(super) fn compile(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Self {
        let words = ["round_robin", "least_connections", "user_hash"];
        match node.and_then(|node| node.one_of("balance", &words, diagnostics)) {
            Some("least_connections") => Self::LeastConnections,
            Some("user_hash") => Self::UserHash,
            _ => Self::RoundRobin,
        }
    }
}

pub(super) fn compile_servers(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<ServerConfig> {
    let items = node.one_or_many();
    if items.is_empty() {
        diagnostics.error(
            node.place,
            format!("{what} has no servers"),
            "write `servers: [127.0.0.1:8101]`",
        );
    }
    if items.len() > MAX_SERVERS {
        let message = format!("{what} has more than {MAX_SERVERS} servers");
        diagnostics.error(node.place, message, "put a load balancer before them");
        return Vec::new();
    }
    let mut servers: Vec<ServerConfig> = Vec::with_capacity(items.len());
    for item in items {
        let Some(server) = compile_server(what, item, diagnostics) else {
            continue;
        };
        if servers.iter().any(|known| known.address == server.address) {
            let message = format!("{what} names {} twice", server.address);
            diagnostics.error(
                item.place,
                message,
                "name it once; `weight` gives it more requests",
            );
        }
        servers.push(server);
    }
    servers
}

fn compile_server(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<ServerConfig> {
    let server = format!("a server of {what}");
    if !matches!(node.value, Value::Map(_)) {
        let address = node.socket_address(&server, diagnostics)?;
        return Some(ServerConfig { address, weight: 1 });
    }
    let mut section = node.section(&server, diagnostics)?;
    let address = section
        .required("address", "write `address: 127.0.0.1:8101`", diagnostics)
        .and_then(|node| node.socket_address(&server, diagnostics));
    let weight = match section.optional("weight") {
        Some(node) => node.integer("weight", 1..=MAX_WEIGHT, diagnostics),
        None => Some(1),
    };
    section.finish(diagnostics);
    Some(ServerConfig {
        address: address?,
        weight: weight.and_then(|weight| u32::try_from(weight).ok())?,
    })
}
