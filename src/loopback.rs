//! Is everything on loopback? Demo users may exist only then.

use std::net::SocketAddr;

/// The first address that others could reach.
pub fn first_exposed<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> Option<SocketAddr> {
    addresses
        .into_iter()
        .copied()
        .find(|address| !address.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::first_exposed;

    #[test]
    fn only_loopback_is_loopback() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(
            first_exposed(&parse(&[
                "127.0.0.1:1",
                "127.9.9.9:2",
                "[::1]:3",
                "[::ffff:127.0.0.1]:4"
            ])),
            None
        );
        for exposed in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(
                first_exposed(&parse(&["127.0.0.1:1", exposed])).is_some(),
                "{exposed}"
            );
        }
    }
}
