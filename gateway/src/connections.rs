//! How many connections the edge has, from whom, and how many it takes.
//!
//! A connection counts from the moment it is accepted to its end, whatever it carries: idle ones,
//! WebSockets and those of HTTP/2 with many requests are one each. What is beyond a limit is closed
//! without a word.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use crate::capped_warning::CappedWarning;
use crate::clock;
use crate::networks::contains;
use crate::proxy::Shared;
use crate::quota_table::ClientKey;

/// In how many parts the counts by address are kept, each with a lock of its own.
const PARTS: usize = 32;

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// `max_connections`.
    Edge,
    /// `max_connections_per_address`.
    Address,
}

impl Full {
    pub(crate) const ALL: [Self; 2] = [Self::Edge, Self::Address];

    /// The key that limits it, which is also the word for it in metrics.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Edge => "max_connections",
            Self::Address => "max_connections_per_address",
        }
    }
}

/// The connections of the edge.
#[derive(Debug)]
pub(crate) struct Connections {
    most: AtomicUsize,
    most_of_address: AtomicUsize,
    open: AtomicUsize,
    /// No more entries than there are connections.
    by_address: [Mutex<HashMap<ClientKey, usize>>; PARTS],
    refused: [AtomicU64; Full::ALL.len()],
    warning: CappedWarning,
}

/// A connection that was taken; dropped at its end.
#[derive(Debug)]
pub(crate) struct Slot {
    connections: Arc<Connections>,
    client: ClientKey,
}

impl Connections {
    /// At most `most`, and at most so many of one address.
    pub(crate) fn new(most: usize, most_of_address: Option<usize>) -> Self {
        Self {
            most: AtomicUsize::new(most),
            most_of_address: AtomicUsize::new(most_of_address.unwrap_or(usize::MAX)),
            open: AtomicUsize::new(0),
            by_address: std::array::from_fn(|_| Mutex::default()),
            refused: Default::default(),
            warning: CappedWarning::default(),
        }
    }

    /// Has other limits from now on. Whoever is there stays.
    pub(crate) fn limit_to(&self, most: usize, most_of_address: Option<usize>) {
        self.most.store(most, Ordering::Relaxed);
        let most_of_address = most_of_address.unwrap_or(usize::MAX);
        self.most_of_address.store(most_of_address, Ordering::Relaxed);
    }

    /// Takes a connection, or says which limit it is beyond. That of an address is none for a proxy,
    /// whose connections are many clients'.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, is_proxy: bool) -> Result<Slot, Full> {
        let client = ClientKey::of_address(address);
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Edge);
        }
        let mut part = self.part(client).lock();
        let count = part.entry(client).or_default();
        if !is_proxy && *count >= self.most_of_address.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Address);
        }
        *count += 1;
        drop(part);
        Ok(Slot {
            connections: Arc::clone(self),
            client,
        })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The limit of the whole edge.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// How many were not taken.
    pub(crate) fn refused(&self, full: Full) -> u64 {
        self.refused[full as usize].load(Ordering::Relaxed)
    }

    fn refuse(&self, full: Full, address: IpAddr) {
        self.refused[full as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(unsaid) = self.warning.occurred(clock::now()) {
            tracing::warn!(limit = full.key(), %address, unsaid, "a connection was refused");
        }
    }

    fn leave(&self, client: ClientKey) {
        let mut part = self.part(client).lock();
        if let Some(count) = part.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                part.remove(&client);
            }
        }
        drop(part);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn part(&self, client: ClientKey) -> &Mutex<HashMap<ClientKey, usize>> {
        let bits = client.bits();
        let folded = (bits ^ (bits >> 64)) as u64;
        let mixed = folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.by_address[usize::try_from(mixed).unwrap_or_default() % PARTS]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.leave(self.client);
    }
}

/// An application whose connections are counted.
pub(crate) struct Counted<A> {
    inner: Arc<A>,
    shared: Arc<Shared>,
}

impl<A> Counted<A> {
    pub(crate) fn new(inner: A, shared: &Arc<Shared>) -> Self {
        Self {
            inner: Arc::new(inner),
            shared: Arc::clone(shared),
        }
    }

    fn enter(&self, address: IpAddr) -> Result<Slot, Full> {
        let trusted = &self.shared.current().config.trusted_proxies;
        let is_proxy = contains(&trusted.networks, address);
        self.shared.connections.enter(address, is_proxy)
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Counted<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = stream.get_socket_digest()?;
        // Whose address is not known is gone already.
        let address = digest.peer_addr()?.as_inet()?.ip();
        let _slot = match self.enter(address) {
            Ok(slot) => slot,
            Err(full) => {
                self.shared.connections.refuse(full, address);
                return None;
            }
        };
        self.inner.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.inner.cleanup().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_slot_comes_back_when_its_connection_ends() {
        let connections = Arc::new(Connections::new(2, None));
        let first = connections.enter(address("192.0.2.1"), false).unwrap();
        let _second = connections.enter(address("192.0.2.1"), false).unwrap();
        assert_eq!(
            connections.enter(address("192.0.2.2"), false).unwrap_err(),
            Full::Edge
        );
        assert_eq!(connections.open(), 2, "a refusal takes nothing");
        drop(first);
        assert!(connections.enter(address("192.0.2.2"), false).is_ok());
    }

    #[test]
    fn other_limits_hold_for_whoever_comes_next() {
        let connections = Arc::new(Connections::new(1, None));
        let _first = connections.enter(address("192.0.2.1"), false).unwrap();
        connections.limit_to(3, Some(1));
        assert_eq!(
            connections.enter(address("192.0.2.1"), false).unwrap_err(),
            Full::Address
        );
        let _second = connections.enter(address("192.0.2.2"), false).unwrap();
        connections.limit_to(1, None);
        assert_eq!(
            connections.enter(address("192.0.2.3"), false).unwrap_err(),
            Full::Edge
        );
        assert_eq!(connections.open(), 2);
    }

    #[test]
    fn an_address_has_its_own_limit_and_leaves_nothing_behind() {
        let connections = Arc::new(Connections::new(100, Some(2)));
        let slots =
            ["2001:db8::1", "2001:db8::2"].map(|text| connections.enter(address(text), false).unwrap());
        assert_eq!(
            connections.enter(address("2001:db8::3"), false).unwrap_err(),
            Full::Address
        );
        assert_eq!(connections.open(), 2);
        let other = connections.enter(address("2001:db8:0:1::1"), false).unwrap();
        drop(connections.enter(address("2001:db8::3"), true).unwrap());
        drop(slots);
        drop(other);
        assert_eq!(connections.open(), 0);
        assert!(connections.by_address.iter().all(|part| part.lock().is_empty()));
    }
}
