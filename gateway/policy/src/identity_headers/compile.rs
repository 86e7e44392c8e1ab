//! Reading `identity_headers:` and `strip:`.

use durward_config::{Diagnostics, Node, Place};
use http::HeaderName;

use super::plan::PlannedHeader;
use super::{IdentityPlan, MAX_IDENTITY_HEADERS, canonical};
use crate::claim_rule::ClaimPath;

/// Names that mean something to HTTP itself or to the gateway: saying who is asking in one of them
/// would change what the request is. Canonical.
const TAKEN: [&str; 27] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// Names of which no alias may be stripped, because the request would not be the same one.
const NEEDED: [&str; 7] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
];

/// Prefixes that belong to the protocol or to the gateway.
const TAKEN_PREFIXES: [&str; 3] = ["sec-", "proxy-", "x-forwarded-"];

impl IdentityPlan {
    /// Compiles `identity_headers:`, a mapping from header to claim.
    pub(crate) fn compile(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Self {
        let entries = node.and_then(|node| node.entries("`identity_headers`", diagnostics));
        let mut plan = Self::default();
        for entry in entries.unwrap_or_default() {
            if let Some(header) = header(&entry.key, entry.place, &entry.node, diagnostics) {
                plan.add(header, diagnostics);
            }
        }
        plan
    }

    fn add(&mut self, header: PlannedHeader, diagnostics: &mut Diagnostics) {
        let folded = canonical(header.name.as_str());
        if let Some(twin) = self
            .headers
            .iter()
            .find(|other| canonical(other.name.as_str()) == folded)
        {
            let message = format!("a backend cannot tell `{}` from `{}`", header.name, twin.name);
            let advice = format!("keep one of the two; the other is at {}", twin.place);
            diagnostics.error(header.place, message, advice);
        } else if self.headers.len() == MAX_IDENTITY_HEADERS {
            diagnostics.error(
                header.place,
                format!("more than {MAX_IDENTITY_HEADERS} identity headers"),
                "configure fewer",
            );
        } else {
            self.headers.push(header);
        }
    }
}

fn header(name: &str, place: Place, node: &Node, diagnostics: &mut Diagnostics) -> Option<PlannedHeader> {
    let header_name = identity_name(name, place, diagnostics);
    let claim = node.text("the claim of an identity header", diagnostics)?;
    let Some(claim) = ClaimPath::new(claim) else {
        let message = format!("`{claim}` is no name of a claim");
        diagnostics.error(
            node.place,
            message,
            "write it as `sub`, or as `realm_access.roles` where it is nested",
        );
        return None;
    };
    Some(PlannedHeader {
        name: header_name?,
        claim,
        place,
    })
}

/// A name in which the gateway may say who asks. Reports one that means something else already.
pub fn identity_name(name: &str, place: Place, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let header_name = header_name(name, place, diagnostics)?;
    let folded = canonical(header_name.as_str());
    let taken =
        TAKEN.contains(&folded.as_str()) || TAKEN_PREFIXES.iter().any(|prefix| folded.starts_with(prefix));
    if taken {
        let message = format!("`{name}` cannot be an identity header: it means something else already");
        diagnostics.error(place, message, "choose a name of its own, such as `X-User-Id`");
        return None;
    }
    Some(header_name)
}

/// A header name as the file writes it.
fn header_name(name: &str, place: Place, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    match HeaderName::try_from(name) {
        Ok(header) if name.bytes().any(|byte| byte.is_ascii_alphanumeric()) => Some(header),
        _ => {
            let message = format!("`{name}` is no name of a header");
            diagnostics.error(place, message, "use letters, digits and `-`");
            None
        }
    }
}

/// Compiles `strip:`, of the file or of a route: names that are kept from the upstream as well.
pub(crate) fn extra_names(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Vec<HeaderName> {
    let texts = node
        .map(|node| node.texts("`strip`", diagnostics))
        .unwrap_or_default();
    let mut names = Vec::new();
    for (text, item) in texts {
        let Some(name) = header_name(text, item.place, diagnostics) else {
            continue;
        };
        if NEEDED.contains(&canonical(name.as_str()).as_str()) {
            diagnostics.error(
                item.place,
                format!("`{text}` cannot be stripped: HTTP needs it"),
                "remove it",
            );
            continue;
        }
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use durward_config::{Diagnostics, Document};

    use super::super::IdentityPlan;

    fn compile(yaml: &str) -> (IdentityPlan, String) {
        let document = Document::parse("c.yaml", yaml).unwrap();
        let mut diagnostics = Diagnostics::default();
        let plan = IdentityPlan::compile(Some(document.root()), &mut diagnostics);
        (plan, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn names_and_claims_are_read() {
        let (plan, errors) = compile("X-User-Id: sub\nX-Roles: realm_access.roles\n");
        assert_eq!(errors, "");
        assert_eq!(plan.names().collect::<Vec<_>>(), ["x-user-id", "x-roles"]);
    }

    #[test]
    fn names_that_mean_something_else_or_cannot_be_told_apart_are_errors() {
        for name in [
            "Host",
            "Connection",
            "Content-Length",
            "Transfer-Encoding",
            "Transfer_Encoding",
            "Authorization",
            "Cookie",
            "Forwarded",
            "X-Forwarded-For",
            "X_Forwarded_User",
            "Sec-WebSocket-Key",
            "Upgrade",
            "TE",
            "\"X User\"",
            "\"---\"",
            "\"X-\u{e9}\"",
            "\"X:Y\"",
        ] {
            let (plan, errors) = compile(&format!("{name}: sub\n"));
            assert!(
                errors.contains("error") && plan.names().count() == 0,
                "{name}: {errors}"
            );
        }
        let (_, errors) = compile("X-User-Id: sub\nx_user.id: roles\n");
        assert!(
            errors.contains("cannot tell `x_user.id` from `x-user-id`"),
            "{errors}"
        );
        let (_, errors) = compile("X-User-Id: [sub]\nX-Roles: a..b\n");
        assert!(
            errors.contains("must be text") && errors.contains("no name of a claim"),
            "{errors}"
        );
    }
}
