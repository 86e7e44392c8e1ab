//! `service_headers:`: what is said of a service, in headers of its own.

use durward_config::{Diagnostics, Node, Place};
use http::{HeaderName, HeaderValue};

use super::compile::identity_name;
use super::{IdentityPlan, canonical};
use crate::api_key::GrantedKey;
use crate::trace::{Outcome, Step, Trace};

/// The header that says which service asks, where the file does not name it.
const DEFAULT_NAME: HeaderName = HeaderName::from_static("x-service-id");
const WORDS: [&str; 2] = ["id", "scope"];

/// The headers that say which service asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceHeaders(Vec<ServiceHeader>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceHeader {
    name: HeaderName,
    says: Says,
    place: Place,
}

/// What a header says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Its name.
    Id,
    /// What its key may do, separated by spaces.
    Scope,
}

impl ServiceHeaders {
    /// Compiles `service_headers:`, a mapping from header to `id` or `scope`. Without it there is
    /// `X-Service-Id`, whether or not a route accepts services: backends read it, so that a client must
    /// never be able to say it. Where none does, it may be an identity header, and is one alone then.
    pub(crate) fn compile(
        node: Option<&Node>,
        users: &IdentityPlan,
        services_accepted: bool,
        file_place: Place,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut plan = Self::default();
        match node {
            Some(node) => {
                for entry in node.entries("`service_headers`", diagnostics).unwrap_or_default() {
                    let name = identity_name(&entry.key, entry.place, diagnostics);
                    let word = entry
                        .node
                        .one_of("what a service header says", &WORDS, diagnostics);
                    let says = match word {
                        Some("id") => Says::Id,
                        Some(_) => Says::Scope,
                        None => continue,
                    };
                    if let Some(name) = name {
                        let place = entry.place;
                        plan.add(ServiceHeader { name, says, place }, users, diagnostics);
                    }
                }
                if !plan.0.iter().any(|header| header.says == Says::Id) {
                    let advice = "write `service_headers: { X-Service-Id: id }`";
                    diagnostics.error(node.place, "no service header says which service asks", advice);
                }
            }
            None => {
                let is_users = users.names().any(|name| canonical(name) == DEFAULT_NAME.as_str());
                if services_accepted || !is_users {
                    let header = ServiceHeader {
                        name: DEFAULT_NAME,
                        says: Says::Id,
                        place: file_place,
                    };
                    plan.add(header, users, diagnostics);
                }
            }
        }
        plan
    }

    fn add(&mut self, header: ServiceHeader, users: &IdentityPlan, diagnostics: &mut Diagnostics) {
        let folded = canonical(header.name.as_str());
        let twin = users
            .names()
            .chain(self.names())
            .find(|name| canonical(name) == folded);
        if let Some(twin) = twin {
            let message = format!("a backend cannot tell `{}` from `{twin}`", header.name);
            let advice = "a service must not look like a user: give its header a name of its own";
            diagnostics.error(header.place, message, advice);
        } else {
            self.0.push(header);
        }
    }

    /// The headers' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|header| header.name.as_str())
    }

    pub(crate) fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|header| &header.name)
    }

    /// What is said of a key's service. Without scopes there is no header of scopes.
    pub(super) fn values<'s>(
        &'s self,
        key: &'s GrantedKey,
    ) -> impl Iterator<Item = (&'s HeaderName, &'s HeaderValue)> {
        let value = |header: &'s ServiceHeader| Some((&header.name, header.says.of(key)?));
        self.0.iter().filter_map(value)
    }

    pub(crate) fn trace<T: Trace>(&self, key: &GrantedKey, trace: &mut T) {
        for header in &self.0 {
            trace.step(|| {
                let name = header.name.to_string();
                let step = match header.says.of(key) {
                    Some(value) => {
                        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                        Step::new(name, Outcome::Hit, value)
                    }
                    None => Step::new(name, Outcome::Miss, "the key has no scopes"),
                };
                step.at(header.place)
            });
        }
    }
}

impl Says {
    fn of(self, key: &GrantedKey) -> Option<&HeaderValue> {
        match self {
            Self::Id => Some(key.service_value()),
            Self::Scope => key.scope_value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use durward_config::{Diagnostics, Document, Place};

    use super::ServiceHeaders;
    use crate::identity_headers::IdentityPlan;

    fn compile(yaml: Option<&str>, accepted: bool) -> (Vec<String>, String) {
        compile_beside("X-User-Id: sub\n", yaml, accepted)
    }

    fn compile_beside(users: &str, yaml: Option<&str>, accepted: bool) -> (Vec<String>, String) {
        let users = Document::parse("c.yaml", users).unwrap();
        let document = Document::parse("c.yaml", yaml.unwrap_or("{}")).unwrap();
        let mut diagnostics = Diagnostics::default();
        let users = IdentityPlan::compile(Some(users.root()), &mut diagnostics);
        let node = yaml.map(|_| document.root());
        let plan = ServiceHeaders::compile(node, &users, accepted, Place::default(), &mut diagnostics);
        let names = plan.names().map(str::to_owned).collect();
        (names, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn services_have_a_header_whether_they_are_accepted_or_not() {
        for accepted in [false, true] {
            let expected = (vec!["x-service-id".into()], String::new());
            assert_eq!(compile(None, accepted), expected);
        }
        let users = "X_Service_Id: sub\n";
        assert_eq!(compile_beside(users, None, false), (vec![], String::new()));
        let (_, errors) = compile_beside(users, None, true);
        assert!(errors.contains("cannot tell `x-service-id`"), "{errors}");
        let (names, errors) = compile(Some("X-Caller: id\nX-Caller-Scope: scope\n"), false);
        assert_eq!((names.len(), errors.as_str()), (2, ""));
    }

    #[test]
    fn a_service_cannot_be_said_where_a_user_is() {
        for (yaml, problem) in [
            ("x_user.id: id\n", "cannot tell `x_user.id` from `x-user-id`"),
            ("X-A: id\nx_a: scope\n", "cannot tell `x_a` from `x-a`"),
            ("Authorization: id\n", "cannot be an identity header"),
            ("X-Api-Key: id\n", "cannot be an identity header"),
            ("X-A: sub\n", "cannot be `sub`"),
            ("X-A: scope\n", "no service header says which service asks"),
            ("{}\n", "no service header says which service asks"),
            ("id\n", "must be a mapping"),
        ] {
            let (_, errors) = compile(Some(yaml), true);
            assert!(errors.contains(problem), "{yaml}: {errors}");
        }
    }
}
