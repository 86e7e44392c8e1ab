//! The methods that are proxied.

use std::fmt;

use http::Method;

/// A set of methods. Methods are case-sensitive (RFC 9110 section 9.1); TRACE would show the backend's
/// view of a request, identity headers and all, to the client (section 9.3.8), and CONNECT is not for
/// gateways: neither is in any set, nor is a method that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MethodSet(u8);

/// Each method with its name, in the order of bits.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl MethodSet {
    /// Every method that is proxied.
    pub const ALL: Self = Self((1 << METHODS.len()) - 1);

    /// The set of one method; nothing where that is not proxied.
    pub fn of(method: &Method) -> Option<Self> {
        Self::named(method.as_str())
    }

    /// The set of the method of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        METHODS
            .iter()
            .position(|known| *known == name)
            .map(|bit| Self(1 << bit))
    }

    /// The names of all methods, for advice.
    pub(crate) fn names() -> &'static [&'static str] {
        &METHODS
    }

    /// Whether the sets have a method in common.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it has all methods of `other`.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The methods of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As the Allow header has it (RFC 9110 section 10.2.1).
impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = METHODS
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0);
        names.next().map_or(Ok(()), |(_, name)| f.write_str(name))?;
        names.try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::MethodSet;

    #[test]
    fn known_methods_have_a_set_and_others_none() {
        for name in MethodSet::names() {
            let set = MethodSet::of(&Method::from_bytes(name.as_bytes()).unwrap()).unwrap();
            assert_eq!(set.to_string(), *name);
            assert!(MethodSet::ALL.contains(set) && MethodSet::ALL.intersects(set));
        }
        for name in [
            "get", "Get", "TRACE", "CONNECT", "FOO", "GETT", "GE", "PROPFIND", "X-GET",
        ] {
            assert_eq!(
                MethodSet::of(&Method::from_bytes(name.as_bytes()).unwrap()),
                None,
                "{name}"
            );
        }
    }

    #[test]
    fn sets_print_as_allow_does() {
        let set = |name| MethodSet::named(name).unwrap();
        assert_eq!(set("PUT").union(set("GET")).to_string(), "GET, PUT");
        assert_eq!(MethodSet::default().to_string(), "");
        assert!(!set("PUT").intersects(set("GET")));
    }
}
