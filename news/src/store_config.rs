//! `store:` and `redis:` compiled: which Redis, and how to get in.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use durward_config::{Diagnostic, Diagnostics, Node, Section};
use rustls::ClientConfig;

use crate::store_secret::Password;
use crate::store_tls::{TlsFiles, client_config};
use crate::store_url::{self, StoreUrl, Topology};

/// The first part of every key where the file does not say another.
const DEFAULT_NAMESPACE: &str = "durward";
const MAX_NAMESPACE_BYTES: usize = 64;
const MAX_USERNAME_BYTES: usize = 256;

/// A Redis that the configuration names. Cheap to clone; printing it shows no secret.
#[derive(Clone)]
pub struct RedisTarget {
    pub(crate) topology: Topology,
    pub(crate) database: i64,
    pub(crate) login: Login,
    pub(crate) sentinel_login: Login,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    namespace: Arc<str>,
}

/// How to get in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub username: Option<String>,
    pub password: Option<Password>,
}

impl RedisTarget {
    /// Whether a `store:` is meant to be a Redis: other kinds of store are no matter of this crate.
    pub fn is_meant_by(store: &str) -> bool {
        store_url::is_redis(store)
    }

    /// Compiles `store:` and the mapping `redis:` beside it. Files are looked for from `base`.
    /// Nothing comes back where anything is wrong.
    pub fn compile(
        store: &Node,
        options: Option<&Node>,
        base: &Path,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let url = compile_url(store, diagnostics);
        let options = match options {
            None => Some(Options::default()),
            Some(node) => Options::compile(node, base, diagnostics),
        };
        let (url, options) = (url?, options?);
        if let Some(node) = options.tls_node
            && !url.tls
        {
            diagnostics.error(
                node.place,
                "`tls` is set, and the store's URL is without TLS",
                "write rediss:// in `store`, or remove `tls`",
            );
            return None;
        }
        if let Some(node) = options.sentinel_node
            && !matches!(url.topology, Topology::Sentinel { .. })
        {
            let message = "a sentinel's login is set, and the store has no sentinels";
            diagnostics.error(
                node.place,
                message,
                "write redis+sentinel:// in `store`, or remove it",
            );
            return None;
        }
        let tls = if url.tls {
            let files = options.tls.files();
            match client_config(&files, base) {
                Ok(config) => Some(config),
                Err(message) => {
                    let place = options.tls_node.map_or(store.place, |node| node.place);
                    let advice = "name PEM files in `redis: { tls: { ca: PATH, cert: PATH, key: PATH } }`";
                    diagnostics.error(place, message, advice);
                    return None;
                }
            }
        } else {
            None
        };
        Some(Self {
            topology: url.topology,
            database: url.database,
            login: options.login,
            sentinel_login: options.sentinel_login,
            tls,
            namespace: options.namespace.into(),
        })
    }

    /// What every key of this installation begins with.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTarget")
            .field("topology", &self.topology)
            .field("database", &self.database)
            .field("login", &self.login)
            .field("sentinel_login", &self.sentinel_login)
            .field("tls", &self.tls.is_some())
            .field("namespace", &self.namespace)
            .finish()
    }
}

struct Options<'a> {
    login: Login,
    sentinel_login: Login,
    sentinel_node: Option<&'a Node>,
    tls: TlsNames<'a>,
    tls_node: Option<&'a Node>,
    namespace: String,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            login: Login::default(),
            sentinel_login: Login::default(),
            sentinel_node: None,
            tls: TlsNames::default(),
            tls_node: None,
            namespace: DEFAULT_NAMESPACE.into(),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct TlsNames<'a> {
    ca: Option<&'a str>,
    client: Option<(&'a str, &'a str)>,
}

impl<'a> TlsNames<'a> {
    fn files(self) -> TlsFiles<'a> {
        TlsFiles {
            ca: self.ca.map(Path::new),
            client: self.client.map(|(cert, key)| (Path::new(cert), Path::new(key))),
        }
    }
}

impl<'a> Options<'a> {
    fn compile(node: &'a Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut section = node.section("redis", diagnostics)?;
        let login = compile_login(&mut section, ["username", "password"], base, diagnostics);
        let sentinel_keys = ["sentinel_username", "sentinel_password"];
        let sentinel_login = compile_login(&mut section, sentinel_keys, base, diagnostics);
        let sentinel_node = sentinel_keys.iter().find_map(|key| section.optional(key));
        let tls_node = section.optional("tls");
        let tls = match tls_node {
            None => Some(TlsNames::default()),
            Some(node) => compile_tls(node, diagnostics),
        };
        let namespace = match section.optional("namespace") {
            None => Some(DEFAULT_NAMESPACE.to_owned()),
            Some(node) => compile_namespace(node, diagnostics),
        };
        section.finish(diagnostics);
        Some(Self {
            login: login?,
            sentinel_login: sentinel_login?,
            sentinel_node,
            tls: tls?,
            tls_node,
            namespace: namespace?,
        })
    }
}

fn compile_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<StoreUrl> {
    let text = node.text("store", diagnostics)?;
    match store_url::parse(text) {
        Ok(url) => Some(url),
        Err(fault) => {
            let diagnostic = Diagnostic::error(node.place, fault.message, fault.advice);
            diagnostics.push(if fault.secret {
                diagnostic.concealing_line()
            } else {
                diagnostic
            });
            None
        }
    }
}

fn compile_login(
    section: &mut Section<'_>,
    [username_key, password_key]: [&'static str; 2],
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<Login> {
    let username_node = section.optional(username_key);
    let password_node = section.optional(password_key);
    let username = match username_node {
        None => None,
        Some(node) => {
            let text = node.text(username_key, diagnostics)?;
            if text.is_empty() || text.len() > MAX_USERNAME_BYTES {
                diagnostics.error(
                    node.place,
                    format!("`{username_key}` is empty or too long"),
                    "write a name",
                );
                return None;
            }
            Some(text.to_owned())
        }
    };
    let password = match password_node {
        None => None,
        Some(node) => {
            let reference = node.secret(password_key, diagnostics)?;
            match Password::read(&reference, base) {
                Ok(password) => Some(password),
                Err(message) => {
                    diagnostics.error(node.place, message, "put the password there");
                    return None;
                }
            }
        }
    };
    if let (Some(node), None) = (username_node, &password) {
        let message = format!("`{username_key}` is there without `{password_key}`");
        diagnostics.error(
            node.place,
            message,
            format!("write `{password_key}: {{ file: PATH }}`"),
        );
        return None;
    }
    Some(Login { username, password })
}

fn compile_tls<'a>(node: &'a Node, diagnostics: &mut Diagnostics) -> Option<TlsNames<'a>> {
    let mut section = node.section("tls", diagnostics)?;
    let mut path = |key: &'static str, diagnostics: &mut Diagnostics| match section.optional(key) {
        None => Some(None),
        Some(node) => node.text(key, diagnostics).map(Some),
    };
    let (ca, cert, key) = (
        path("ca", diagnostics),
        path("cert", diagnostics),
        path("key", diagnostics),
    );
    section.finish(diagnostics);
    let client = match (cert?, key?) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            let message = "`tls` has only one of `cert` and `key`";
            diagnostics.error(node.place, message, "write both, or none of them");
            return None;
        }
    };
    Some(TlsNames { ca: ca?, client })
}

/// Plain, so that it can stand in a hash tag.
fn compile_namespace(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = node.text("namespace", diagnostics)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if text.is_empty() || text.len() > MAX_NAMESPACE_BYTES || !text.bytes().all(plain) {
        let advice = "write up to 64 of A-Z a-z 0-9 . _ : -";
        diagnostics.error(node.place, format!("`{text}` cannot be a namespace"), advice);
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use durward_config::{Document, Value};

    use super::*;

    fn compile(text: &str) -> (Option<RedisTarget>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let Value::Map(entries) = &document.root().value else {
            panic!("a mapping")
        };
        let mut diagnostics = Diagnostics::default();
        let target = RedisTarget::compile(
            &entries[0].node,
            entries.get(1).map(|entry| &entry.node),
            Path::new(env!("CARGO_MANIFEST_DIR")),
            &mut diagnostics,
        );
        (target, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn a_store_is_compiled_with_its_options() {
        let (target, text) = compile("store: redis://a:1/2\n");
        assert_eq!(text, "");
        assert_eq!(target.unwrap().namespace(), "durward");
        let (target, text) = compile(
            "store: redis+sentinel://a/m\nredis:\n  namespace: prod\n  username: u\n  password: { env: PATH }\n  sentinel_password: { env: PATH }\n",
        );
        assert_eq!(text, "");
        let target = target.unwrap();
        let path = std::env::var("PATH").unwrap();
        assert_eq!(
            target.login.password.as_ref().map(Password::expose),
            Some(path.as_str())
        );
        assert_eq!(target.namespace(), "prod");
        assert!(!format!("{target:?}").contains(&path));
    }

    #[test]
    fn what_is_wrong_is_said_and_secrets_are_not() {
        for (text, expected) in [
            (
                "store: redis://u:hunter2@a\n",
                "must not stand in the store's URL",
            ),
            ("store: ftp://a\n", "a scheme that is not known"),
            (
                "store: redis://a\nredis: { password: hunter2 }\n",
                "must not stand in the file itself",
            ),
            (
                "store: redis://a\nredis: { password: { file: no/such } }\n",
                "cannot read",
            ),
            ("store: redis://a\nredis: { username: u }\n", "without `password`"),
            ("store: redis://a\nredis: { tls: { ca: x } }\n", "without TLS"),
            (
                "store: redis://a\nredis: { sentinel_password: { env: PATH } }\n",
                "has no sentinels",
            ),
            (
                "store: rediss://a\nredis: { tls: { ca: Cargo.toml } }\n",
                "holds no certificate",
            ),
            (
                "store: rediss://a\nredis: { tls: { cert: Cargo.toml } }\n",
                "only one of",
            ),
            (
                "store: redis://a\nredis: { namespace: 'a{b' }\n",
                "cannot be a namespace",
            ),
            (
                "store: redis://a\nredis: { pasword: { env: PATH } }\n",
                "did you mean `password`?",
            ),
        ] {
            let (target, found) = compile(text);
            assert!(target.is_none() || found.contains("unknown key"), "{text}");
            assert!(found.contains(expected), "{text}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
}
