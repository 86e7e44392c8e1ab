//! Cross-origin requests of browsers (the Fetch standard, section "CORS protocol"): which origins may
//! read a route's responses, refusals included.
//!
//! None of this gives access: a request of an origin that is allowed needs the route's credential like
//! any other, and one of an origin that is not is decided on all the same; its page cannot read the
//! answer. A preflight is answered without a credential, because browsers send none, and goes no
//! further.

use std::time::Duration;

use durward_config::{Diagnostics, Node};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::uri::Uri;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::request_facts::MethodSet;
use crate::{Policy, RequestFacts, RouteId};

/// The most origins of a route.
const MAX_ORIGINS: usize = 256;
/// The most names of a list of headers.
const MAX_NAMES: usize = 64;
const MAX_AGES: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

/// Who may read a route's responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: MethodSet,
    allow_methods: HeaderValue,
    allow_headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origins {
    Any,
    Listed(Vec<HeaderValue>),
}

/// A field of a response.
pub type Field = (HeaderName, HeaderValue);

/// The answer to a preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The route that was asked about.
    pub route: RouteId,
    /// What is said; little where the origin or the method is not allowed.
    pub fields: Vec<Field>,
}

/// What a preflight is answered, where the request is one and its route has `cors`.
pub fn preflight(policy: &Policy, facts: &RequestFacts<'_>) -> Option<Preflight> {
    if *facts.method() != Method::OPTIONS {
        return None;
    }
    let headers = facts.headers();
    let method = one(headers, ACCESS_CONTROL_REQUEST_METHOD)?;
    let origin = one(headers, ORIGIN)?;
    let method = MethodSet::of(&Method::from_bytes(method.as_bytes()).ok()?)?;
    let route = policy.routes().lookup(&facts.of_method(method)).ok()?.route;
    let cors = route.cors.as_ref()?;
    Some(Preflight {
        route: route.id,
        fields: cors.preflight(origin, method),
    })
}

fn one(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

impl Cors {
    /// The fields of a response to a request with these headers.
    pub fn fields(&self, request: &HeaderMap) -> Vec<Field> {
        let Some(allowed) = one(request, ORIGIN).and_then(|origin| self.allowed(origin)) else {
            return Vec::new();
        };
        let mut fields = self.origin_fields(allowed);
        fields.extend(
            self.expose
                .clone()
                .map(|names| (ACCESS_CONTROL_EXPOSE_HEADERS, names)),
        );
        fields
    }

    /// Whether the fields differ from origin to origin, so that a cache has to keep them apart.
    pub fn varies(&self) -> bool {
        matches!(self.origins, Origins::Listed(_))
    }

    fn preflight(&self, origin: &HeaderValue, method: MethodSet) -> Vec<Field> {
        let allowed = self.allowed(origin).filter(|_| self.methods.contains(method));
        let Some(allowed) = allowed else {
            return Vec::new();
        };
        let mut fields = self.origin_fields(allowed);
        fields.push((ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone()));
        fields.extend(
            self.allow_headers
                .clone()
                .map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)),
        );
        fields.extend(self.max_age.clone().map(|age| (ACCESS_CONTROL_MAX_AGE, age)));
        fields
    }

    /// What an origin is told: itself, or `*` where that is what the route says.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(origins) => origins.iter().find(|known| *known == origin).cloned(),
        }
    }

    fn origin_fields(&self, allowed: HeaderValue) -> Vec<Field> {
        let mut fields = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, allowed)];
        if self.credentials {
            fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        fields
    }

    /// Reads `cors:` of a route that takes these methods. The outer option is empty where it is wrong.
    pub(crate) fn compile(
        node: Option<&Node>,
        of_route: Option<MethodSet>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Option<Self>> {
        let Some(node) = node else { return Some(None) };
        let mut section = node.section("`cors`", diagnostics)?;
        let advice = "write `origins: [https://app.example.com]`";
        let origins = section.required("origins", advice, diagnostics);
        let credentials = section
            .optional("credentials")
            .is_some_and(|node| node.boolean("`credentials`", diagnostics).unwrap_or(false));
        let methods = section.optional("methods");
        let headers = section.optional("headers");
        let expose = section.optional("expose");
        let max_age = section.optional("max_age");
        section.finish(diagnostics);
        let all = of_route.unwrap_or(MethodSet::ALL);
        let methods = match methods {
            Some(node) => compile_methods(node, all, diagnostics),
            None => Some(all),
        };
        let allow_headers = headers.map(|node| names(node, "`headers`", diagnostics));
        let expose = expose.map(|node| names(node, "`expose`", diagnostics));
        let max_age = max_age.map(|node| node.duration("`max_age`", MAX_AGES, diagnostics));
        let origins = compile_origins(origins?, credentials, diagnostics);
        let methods = methods?;
        Some(Some(Self {
            origins: origins?,
            credentials,
            allow_methods: HeaderValue::from_str(&methods.to_string()).ok()?,
            methods,
            allow_headers: match allow_headers {
                Some(names) => Some(names?),
                None => None,
            },
            expose: match expose {
                Some(names) => Some(names?),
                None => None,
            },
            max_age: match max_age {
                Some(age) => Some(HeaderValue::from(age?.as_secs())),
                None => None,
            },
        }))
    }
}

fn compile_origins(node: &Node, credentials: bool, diagnostics: &mut Diagnostics) -> Option<Origins> {
    let texts = node.texts("an origin", diagnostics);
    if texts.is_empty() || texts.len() > MAX_ORIGINS {
        let message = format!("`origins` lists {} origins", texts.len());
        diagnostics.error(node.place, message, format!("list from 1 to {MAX_ORIGINS}"));
        return None;
    }
    if texts.iter().any(|(text, _)| *text == "*") {
        if credentials {
            let message = "any origin could read what a user's credentials give access to";
            diagnostics.error(
                node.place,
                message,
                "list the origins, or remove `credentials: true`",
            );
            return None;
        }
        if texts.len() > 1 {
            diagnostics.error(
                node.place,
                "`*` stands beside other origins",
                "write it alone, or not at all",
            );
            return None;
        }
        return Some(Origins::Any);
    }
    let mut origins: Vec<HeaderValue> = Vec::with_capacity(texts.len());
    for (text, item) in &texts {
        let Some(origin) = origin(text) else {
            let message = format!("`{text}` is no origin as a browser says it");
            let advice = "write scheme, host and port, in lower case, as in https://app.example.com or http://localhost:3000";
            diagnostics.error(item.place, message, advice);
            continue;
        };
        if origins.contains(&origin) {
            diagnostics.error(item.place, format!("`{text}` is listed twice"), "list it once");
        }
        origins.push(origin);
    }
    Some(Origins::Listed(origins))
}

/// An origin in the one spelling that browsers have for it, which is compared byte for byte.
fn origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?;
    let default_port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let port = authority.port_u16();
    let spelt = match port {
        Some(port) => format!("{scheme}://{}:{port}", authority.host()),
        None => format!("{scheme}://{}", authority.host()),
    };
    let is_one = spelt == text
        && port != Some(default_port)
        && !authority.as_str().contains('@')
        && !text.contains(|c: char| c.is_ascii_uppercase())
        && !text.ends_with('.')
        && !text.contains('*');
    is_one.then(|| HeaderValue::from_str(text).ok()).flatten()
}

fn compile_methods(node: &Node, of_route: MethodSet, diagnostics: &mut Diagnostics) -> Option<MethodSet> {
    let mut set = MethodSet::default();
    for (text, item) in node.texts("a method", diagnostics) {
        match MethodSet::named(text) {
            Some(method) if of_route.contains(method) => set = set.union(method),
            _ => {
                let advice = format!("write some of: {of_route}");
                diagnostics.error(item.place, format!("the route does not take `{text}`"), advice);
            }
        }
    }
    if set == MethodSet::default() {
        diagnostics.error(
            node.place,
            "`methods` names none",
            "list some, or remove it to allow those of the route",
        );
        return None;
    }
    Some(set)
}

fn names(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<HeaderValue> {
    let texts = node.texts(what, diagnostics);
    if texts.is_empty() || texts.len() > MAX_NAMES {
        let message = format!("{what} lists {} names", texts.len());
        diagnostics.error(node.place, message, format!("list from 1 to {MAX_NAMES}"));
        return None;
    }
    let mut found = Vec::with_capacity(texts.len());
    for (text, item) in texts {
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if text != "*" => found.push(name),
            _ => {
                let advice = "write names such as Authorization; `*` does not stand for that one";
                diagnostics.error(item.place, format!("`{text}` is no name of a header"), advice);
            }
        }
    }
    let joined = found
        .iter()
        .map(HeaderName::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    HeaderValue::from_str(&joined).ok()
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> Result<Cors, String> {
        let document = Document::parse("c", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let cors = Cors::compile(Some(document.root()), MethodSet::named("GET"), &mut diagnostics);
        let text = diagnostics.located_in(&document).to_string();
        if text.is_empty() {
            Ok(cors.unwrap().unwrap())
        } else {
            Err(text)
        }
    }

    fn said(fields: &[Field]) -> Vec<String> {
        let text = |(name, value): &Field| format!("{name}: {}", value.to_str().unwrap());
        fields.iter().map(text).collect()
    }

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))])
    }

    #[test]
    fn only_a_listed_origin_is_told_and_it_is_told_itself() {
        let cors = compile(
            "{ origins: [https://a.example, http://localhost:3000], credentials: true, headers: [Authorization, X-A], \
             expose: X-B, max_age: 10m }",
        )
        .unwrap();
        assert_eq!(
            said(&cors.fields(&from("https://a.example"))),
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-b",
            ]
        );
        for origin in [
            "https://a.example.evil",
            "https://A.example",
            "http://a.example",
            "null",
            "https://a.example:443",
        ] {
            assert!(cors.fields(&from(origin)).is_empty(), "{origin}");
        }
        let mut twice = from("https://a.example");
        twice.append(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert!(cors.fields(&twice).is_empty());
        let origin = HeaderValue::from_static("http://localhost:3000");
        let get = MethodSet::named("GET").unwrap();
        assert_eq!(
            said(&cors.preflight(&origin, get)),
            [
                "access-control-allow-origin: http://localhost:3000",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET",
                "access-control-allow-headers: authorization, x-a",
                "access-control-max-age: 600",
            ]
        );
        assert!(
            cors.preflight(&origin, MethodSet::named("PUT").unwrap())
                .is_empty()
        );
        assert!(cors.varies());
        let any = compile("{ origins: '*' }").unwrap();
        assert_eq!(
            said(&any.fields(&from("null"))),
            ["access-control-allow-origin: *"]
        );
        assert!(!any.varies());
    }

    #[test]
    fn what_would_let_anybody_in_or_nobody_is_an_error() {
        for (text, expected) in [
            ("{ origins: '*', credentials: true }", "any origin could read"),
            ("{ origins: ['*', https://a.example] }", "beside other origins"),
            ("{ origins: [] }", "lists 0"),
            ("{ credentials: true }", "origins"),
            ("{ origins: 'https://*.example' }", "no origin"),
            ("{ origins: 'https://a.example/' }", "no origin"),
            ("{ origins: 'https://A.example' }", "no origin"),
            ("{ origins: 'https://a.example:443' }", "no origin"),
            ("{ origins: 'https://u@a.example' }", "no origin"),
            ("{ origins: a.example }", "no origin"),
            ("{ origins: 'null' }", "no origin"),
            ("{ origins: 'file://x' }", "no origin"),
            (
                "{ origins: https://a.example, methods: [PUT] }",
                "does not take `PUT`",
            ),
            (
                "{ origins: https://a.example, headers: '*' }",
                "no name of a header",
            ),
            ("{ origins: https://a.example, max_age: 2d }", "out of range"),
            ("{ origin: https://a.example }", "unknown key"),
        ] {
            let error = compile(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
