//! `forward_auth:` compiled.

use std::net::{IpAddr, SocketAddr};

use durward_config::{Diagnostics, Node};
use durward_policy::AskingProxy;
use ipnet::IpNet;

use crate::networks::{compile_networks, contains};

/// The listener at which proxies ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuthConfig {
    /// Where it is.
    pub listen: SocketAddr,
    /// Who may ask.
    pub trusted: Vec<IpNet>,
    /// In whose ways.
    pub proxies: Vec<AskingProxy>,
}

impl ForwardAuthConfig {
    /// Whether a peer may ask.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        contains(&self.trusted, peer)
    }
}

pub(crate) fn compile_forward_auth(
    node: Option<&Node>,
    diagnostics: &mut Diagnostics,
) -> Option<ForwardAuthConfig> {
    let mut section = node?.section("forward_auth", diagnostics)?;
    let listen = section.required("listen", "write `listen: 127.0.0.1:9180`", diagnostics);
    let trusted = section.required("trusted", "write `trusted: [127.0.0.1]`", diagnostics);
    let proxies = section.required("proxies", "write `proxies: [nginx]`", diagnostics);
    section.finish(diagnostics);
    let listen = listen.and_then(|node| node.socket_address("forward_auth.listen", diagnostics));
    let because = "write the addresses of the proxies: whoever may ask may say whose request it is";
    let trusted = trusted.map(|node| compile_networks(node, "forward_auth.trusted", because, diagnostics));
    let proxies = proxies.map(|node| compile_proxies(node, diagnostics));
    Some(ForwardAuthConfig {
        listen: listen?,
        trusted: trusted?,
        proxies: proxies?,
    })
}

fn compile_proxies(node: &Node, diagnostics: &mut Diagnostics) -> Vec<AskingProxy> {
    let names = AskingProxy::ALL.map(AskingProxy::name);
    let items = node.one_or_many();
    if items.is_empty() {
        let message = "forward_auth.proxies is empty: nobody could ask";
        diagnostics.error(node.place, message, "write `proxies: [nginx]`");
    }
    let mut proxies = Vec::new();
    for item in items {
        let name = item.one_of("forward_auth.proxies", &names, diagnostics);
        let proxy = name.and_then(|name| AskingProxy::ALL.into_iter().find(|proxy| proxy.name() == name));
        match proxy {
            Some(proxy) if proxies.contains(&proxy) => {
                let message = format!("forward_auth.proxies names `{}` twice", proxy.name());
                diagnostics.error(item.place, message, "remove one of them");
            }
            Some(proxy) => proxies.push(proxy),
            None => {}
        }
    }
    proxies
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> (Option<ForwardAuthConfig>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let config = compile_forward_auth(Some(document.root()), &mut diagnostics);
        (config, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn a_listener_says_where_who_and_how() {
        let (config, text) =
            compile("{ listen: 127.0.0.1:9180, trusted: [127.0.0.1, 10.0.0.0/8], proxies: [nginx, envoy] }");
        let config = config.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(text, "");
        assert_eq!(config.proxies, [AskingProxy::Nginx, AskingProxy::Envoy]);
        assert!(config.trusts("10.2.3.4".parse().unwrap()));
        assert!(!config.trusts("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn nothing_is_implied_and_every_error_is_told() {
        for (yaml, expected) in [
            ("{}", "`listen` is missing"),
            ("{}", "`trusted` is missing"),
            ("{}", "`proxies` is missing"),
            (
                "{ listen: x, trusted: [], proxies: [] }",
                "not an address with a port",
            ),
            ("{ listen: x, trusted: [], proxies: [] }", "trusted has 0 entries"),
            ("{ listen: x, trusted: [], proxies: [] }", "proxies is empty"),
            (
                "{ listen: '127.0.0.1:1', trusted: [0.0.0.0/0], proxies: [nginx] }",
                "is everybody",
            ),
            (
                "{ listen: '127.0.0.1:1', trusted: ['::/0'], proxies: [nginx] }",
                "is everybody",
            ),
            (
                "{ listen: '127.0.0.1:1', trusted: [localhost], proxies: [nginx] }",
                "no address or network",
            ),
            (
                "{ listen: '127.0.0.1:1', trusted: ['::1'], proxies: [nginxx] }",
                "cannot be `nginxx`",
            ),
            (
                "{ listen: '127.0.0.1:1', trusted: ['::1'], proxies: [nginx, nginx] }",
                "twice",
            ),
            (
                "{ listen: '127.0.0.1:1', trust: ['::1'], proxies: [nginx] }",
                "unknown key `trust`",
            ),
        ] {
            let (_, text) = compile(yaml);
            assert!(text.contains(expected), "{yaml}: {expected} is not in\n{text}");
        }
    }
}
