//! What a route sets in its responses, and what it removes from them.

use durward_config::{Diagnostics, Entry, Node};
use http::{HeaderName, HeaderValue};

/// The most names of either kind.
const MAX_NAMES: usize = 64;
/// The longest value.
const MAX_VALUE: usize = 4096;
/// Fields that say how a response is read, and those that the gateway's CORS says.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "sec-websocket-accept",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
];

/// Changes of the header section of a backend's responses. The gateway's own answers are not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHeaders {
    /// Removed, all that have the name.
    pub remove: Vec<HeaderName>,
    /// Set, instead of what the backend says.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

impl ResponseHeaders {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// Reads `response_headers: { set: {...}, remove: [...] }`.
    pub(crate) fn compile(node: Option<&Node>, has_cors: bool, diagnostics: &mut Diagnostics) -> Self {
        let Some(mut section) = node.and_then(|node| node.section("`response_headers`", diagnostics)) else {
            return Self::default();
        };
        let [set, remove] = [section.optional("set"), section.optional("remove")];
        section.finish(diagnostics);
        let entries = set
            .and_then(|node| node.entries("`set`", diagnostics))
            .unwrap_or_default();
        let removed = remove.map_or(Vec::new(), |node| node.texts("a header to remove", diagnostics));
        if let (Some(node), true) = (node, entries.len() > MAX_NAMES || removed.len() > MAX_NAMES) {
            let message = format!("`response_headers` has more than {MAX_NAMES} names of a kind");
            diagnostics.error(node.place, message, "write fewer");
        }
        let field = |entry: &Entry, diagnostics: &mut Diagnostics| {
            let name = name(&entry.key, &entry.node, has_cors, diagnostics)?;
            Some((name, value(&entry.node, diagnostics)?))
        };
        let compiled = Self {
            set: entries
                .iter()
                .filter_map(|entry| field(entry, diagnostics))
                .collect(),
            remove: removed
                .into_iter()
                .filter_map(|(text, node)| name(text, node, has_cors, diagnostics))
                .collect(),
        };
        let set = compiled.set.iter().map(|(name, _)| name);
        let mut names: Vec<_> = set.chain(&compiled.remove).map(HeaderName::as_str).collect();
        names.sort_unstable();
        if let (Some(node), Some(twice)) = (node, names.windows(2).find(|pair| pair[0] == pair[1])) {
            let message = format!("`response_headers` names {} twice", twice[0]);
            diagnostics.error(
                node.place,
                message,
                "name it once; what is set replaces what the backend says",
            );
        }
        compiled
    }
}

fn name(text: &str, node: &Node, has_cors: bool, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let name = name.filter(|name| !RESERVED.contains(&name.as_str()));
    let Some(name) = name else {
        let message = format!("`{text}` cannot be changed in a response");
        diagnostics.error(node.place, message, "write the name of another header");
        return None;
    };
    if has_cors && name.as_str().starts_with("access-control-") {
        let message = format!("`{text}` is what `cors` says");
        diagnostics.error(node.place, message, "remove it here, or remove `cors`");
        return None;
    }
    Some(name)
}

fn value(node: &Node, diagnostics: &mut Diagnostics) -> Option<HeaderValue> {
    let text = node.text("the value of a header", diagnostics)?;
    let plain = text.len() <= MAX_VALUE
        && text.trim() == text
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let value = plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    if value.is_none() {
        let advice = "write printable ASCII characters, without spaces around them";
        diagnostics.error(node.place, "this is no value of a header", advice);
    }
    value
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str, has_cors: bool) -> (ResponseHeaders, String) {
        let document = Document::parse("c", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let compiled = ResponseHeaders::compile(Some(document.root()), has_cors, &mut diagnostics);
        (compiled, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn names_and_values_are_checked() {
        let (compiled, text) = compile(
            "{ set: { X-Frame-Options: DENY }, remove: [Server, X-Powered-By] }",
            true,
        );
        assert_eq!(text, "");
        assert_eq!(compiled.set[0].1, "DENY");
        assert_eq!(compiled.remove.len(), 2);
        for text in [
            "{ set: { Content-Length: '1' } }",
            "{ remove: [Transfer-Encoding] }",
            "{ set: { 'X Y': a } }",
            "{ set: { X-Y: 1 } }",
            "{ set: { X-Y: \"a\\nb\" } }",
            "{ set: { X-Y: ' a' } }",
            "{ set: { X-Y: a }, remove: x-y }",
            "{ set: { Access-Control-Allow-Origin: '*' } }",
            "{ add: {} }",
        ] {
            assert!(compile(text, true).1.contains("error"), "{text}");
        }
        assert_eq!(
            compile("{ set: { Access-Control-Allow-Origin: '*' } }", false).1,
            ""
        );
    }
}
