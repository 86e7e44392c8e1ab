//! Lists of networks whose word is taken for something.

use std::net::IpAddr;

use durward_config::{Diagnostics, Node};
use ipnet::IpNet;

/// Most entries of a list.
const MAX_NETWORKS: usize = 256;

/// Addresses and networks; never everybody. `what` is the key, `because` says why nobody is trusted
/// like that.
pub(crate) fn compile_networks(
    node: &Node,
    what: &str,
    because: &str,
    diagnostics: &mut Diagnostics,
) -> Vec<IpNet> {
    let items = node.one_or_many();
    if items.is_empty() || items.len() > MAX_NETWORKS {
        let message = format!("{what} has {} entries", items.len());
        let advice = format!("write from 1 to {MAX_NETWORKS} addresses or networks");
        diagnostics.error(node.place, message, advice);
    }
    let compile = |item: &Node| {
        let text = item.text(what, diagnostics)?;
        match network_of(text) {
            Some(network) if network.prefix_len() > 0 => Some(network),
            Some(_) => {
                let message = format!("`{text}` in {what} is everybody");
                diagnostics.error(item.place, message, because);
                None
            }
            None => {
                let message = format!("{what} has something that is no address or network: `{text}`");
                diagnostics.error(item.place, message, "write 127.0.0.1 or 10.0.0.0/24");
                None
            }
        }
    };
    items.iter().filter_map(compile).collect()
}

fn network_of(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().into()),
        Err(_) => text.parse().ok(),
    }
}

/// Whether an address is in one of the networks, however the system writes it.
pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_trusted_in_either_family() {
        let networks = ["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
        for (address, trusted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.2.3", true),
            ("127.0.0.2", false),
            ("::1", false),
        ] {
            assert_eq!(
                contains(&networks, address.parse().unwrap()),
                trusted,
                "{address}"
            );
        }
    }
}
