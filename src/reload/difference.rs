//! What two configuration files say differently, whatever their lines.

use std::fmt;

use durward_config::{Entry, Node, Value};

/// What of one file is not in the other: routes, upstreams and issuers one by one, all else by its
/// top-level key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Difference {
    /// From `old` to `new`, which are the files' top-level mappings.
    pub fn between(old: &Node, new: &Node) -> Self {
        let mut difference = Self::default();
        for key in keys(old, new) {
            let (old, new) = (member(old, &key), member(new, &key));
            if says_the_same(old, new) {
                continue;
            }
            match key.as_str() {
                "upstreams" => difference.compare(&named(old, "upstream"), &named(new, "upstream")),
                "routes" => difference.compare(&listed(old, route_name), &listed(new, route_name)),
                "issuers" => difference.compare(&listed(old, issuer_name), &listed(new, issuer_name)),
                _ => {
                    let into = match (old, new) {
                        (None, _) => &mut difference.added,
                        (_, None) => &mut difference.removed,
                        _ => &mut difference.changed,
                    };
                    into.push(key);
                }
            }
        }
        difference
    }

    /// With what else is known to have changed.
    #[must_use]
    pub fn with_changed(mut self, changed: &[String]) -> Self {
        for what in changed {
            if !self.changed.contains(what) {
                self.changed.push(what.clone());
            }
        }
        self
    }

    /// Those of one name are compared in their order.
    fn compare(&mut self, old: &[(String, &Node)], new: &[(String, &Node)]) {
        let nth = |items: &[(String, &Node)], index: usize| {
            let same = |item: &&(String, &Node)| item.0 == items[index].0;
            items[..index].iter().filter(same).count()
        };
        let find = |items: &[(String, &Node)], name: &str, place: usize| {
            let mut same = (0..items.len()).filter(|index| items[*index].0 == name);
            same.nth(place)
        };
        for (index, (name, node)) in new.iter().enumerate() {
            match find(old, name, nth(new, index)) {
                None => self.added.push(name.clone()),
                Some(before) if !same_value(old[before].1, node) => self.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        for (index, (name, _)) in old.iter().enumerate() {
            if find(new, name, nth(old, index)).is_none() {
                self.removed.push(name.clone());
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("+", &self.added), ("-", &self.removed), ("~", &self.changed)];
        let mut first = true;
        for (sign, what) in kinds
            .iter()
            .flat_map(|(sign, items)| items.iter().map(move |what| (sign, what)))
        {
            if !std::mem::take(&mut first) {
                f.write_str(", ")?;
            }
            write!(f, "{sign} {what}")?;
        }
        if first {
            f.write_str("none")?;
        }
        Ok(())
    }
}

/// The keys of both mappings, each once, in the order of the files.
pub fn keys(old: &Node, new: &Node) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for entry in entries(Some(old)).iter().chain(entries(Some(new))) {
        if !keys.contains(&entry.key) {
            keys.push(entry.key.clone());
        }
    }
    keys
}

/// What a mapping has under a key.
pub fn member<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let mut entries = entries(Some(node)).iter();
    entries.find(|entry| entry.key == key).map(|entry| &entry.node)
}

/// Whether two values are the same, wherever they stand; absent is like nothing else.
pub fn says_the_same(old: Option<&Node>, new: Option<&Node>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => same_value(old, new),
        _ => false,
    }
}

/// Whether two mappings are the same but for one key.
pub fn says_the_same_but_for(old: Option<&Node>, new: Option<&Node>, except: &str) -> bool {
    match (old.map(|node| &node.value), new.map(|node| &node.value)) {
        (Some(Value::Map(old)), Some(Value::Map(new))) => {
            let rest = |entries: &[Entry]| -> Vec<Entry> {
                let others = entries.iter().filter(|entry| entry.key != except);
                others.cloned().collect()
            };
            same_entries(&rest(old), &rest(new))
        }
        _ => says_the_same(old, new),
    }
}

fn same_value(old: &Node, new: &Node) -> bool {
    match (&old.value, &new.value) {
        (Value::List(old), Value::List(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same_value(old, new))
        }
        (Value::Map(old), Value::Map(new)) => same_entries(old, new),
        (old, new) => old == new,
    }
}

/// In any order.
fn same_entries(old: &[Entry], new: &[Entry]) -> bool {
    old.len() == new.len()
        && old.iter().all(|old| {
            let mut same = new.iter().filter(|new| new.key == old.key);
            same.any(|new| same_value(&old.node, &new.node))
        })
}

fn entries(node: Option<&Node>) -> &[Entry] {
    match node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries,
        _ => &[],
    }
}

fn named<'n>(node: Option<&'n Node>, kind: &str) -> Vec<(String, &'n Node)> {
    let name = |entry: &'n Entry| (format!("{kind} {}", entry.key), &entry.node);
    entries(node).iter().map(name).collect()
}

fn listed(node: Option<&Node>, name: impl Fn(&Node) -> String) -> Vec<(String, &Node)> {
    let items = match node.map(|node| &node.value) {
        Some(Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().map(|item| (name(item), item)).collect()
}

fn route_name(route: &Node) -> String {
    let text = |key: &str| texts(member(route, key)).join(",");
    let methods = text("methods");
    let space = if methods.is_empty() { "" } else { " " };
    format!("route {methods}{space}{}{}", text("host"), text("path"))
}

fn issuer_name(issuer: &Node) -> String {
    let name = member(issuer, "use").or_else(|| member(issuer, "issuer"));
    format!("issuer {}", texts(name).join(","))
}

fn texts(node: Option<&Node>) -> Vec<&str> {
    match node.map(|node| &node.value) {
        Some(Value::Text(text)) => vec![text],
        Some(Value::List(items)) => items.iter().flat_map(|item| texts(Some(item))).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn difference(old: &str, new: &str) -> String {
        let parse = |text: &str| Document::parse("c.yaml", text).unwrap();
        let (old, new) = (parse(old), parse(new));
        Difference::between(old.root(), new.root()).to_string()
    }

    #[test]
    fn what_was_added_removed_and_changed_is_said_by_name() {
        let old = "listen: a\nupstreams: { api: { servers: [x] }, old: { servers: [y] } }\n\
                   routes: [{ path: /a }, { path: /b, methods: [GET, PUT] }, { path: /c, host: h }]\n\
                   issuers: [{ use: auth }, { issuer: 'https://a' }]\nstrip: [X]\n";
        let new = "issuers: [{ issuer: 'https://a', leeway: 1s }, { use: auth }]\nproof_cache: 1MiB\n\
                   upstreams: { new: { servers: [y] }, api: { servers: [x, z] } }\nlisten: a\n\
                   routes: [{ path: /b, methods: [GET, PUT], require: { a: b } }, { path: /a }, { path: /d }]\n";
        assert_eq!(
            difference(old, new),
            "+ upstream new, + route /d, + proof_cache, - upstream old, - route h/c, - strip, \
             ~ upstream api, ~ route GET,PUT /b, ~ issuer https://a"
        );
        assert_eq!(difference(old, &format!("# moved\n\n{old}")), "none");
    }

    #[test]
    fn routes_of_one_name_are_compared_one_by_one() {
        let old = "routes: [{ path: /a, access: public }, { path: /a, access: optional }]\n";
        let new = "routes: [{ path: /a, access: public }]\n";
        assert_eq!(difference(old, new), "- route /a");
        assert_eq!(difference(new, old), "+ route /a");
    }
}
