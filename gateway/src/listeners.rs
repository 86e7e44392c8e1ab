//! Listening addresses, bound early so that a taken port is an error with its address and not a
//! panic of a worker, and handed to Pingora by file descriptor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening::Service as Listening;

/// A bound address.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// A Pingora service on bound addresses, each with an application, all on the same threads. It has a
/// shutdown signal of its own: the gateway drains it before the server is told to end.
pub(crate) struct BoundService<A> {
    name: String,
    inner: Vec<Listening<A>>,
    descriptors: ListenFds,
    addresses: Vec<String>,
    shutdown: ShutdownWatch,
    threads: Option<usize>,
}

impl<A> BoundService<A> {
    pub(crate) fn new(
        name: &str,
        bound: Vec<(A, Bound)>,
        threads: Option<usize>,
        shutdown: ShutdownWatch,
    ) -> Self {
        let mut inner = Vec::new();
        let mut descriptors = Fds::new();
        let mut addresses = Vec::new();
        for (app, Bound { listener, address }) in bound {
            let address = address.to_string();
            let mut listening = Listening::new(name.to_owned(), app);
            listening.add_tcp(&address);
            inner.push(listening);
            descriptors.add(address.clone(), listener.into_raw_fd());
            addresses.push(address);
        }
        Self {
            name: name.to_owned(),
            inner,
            descriptors: Arc::new(Mutex::new(descriptors)),
            addresses,
            shutdown,
            threads,
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for BoundService<A> {
    async fn start_service(
        &mut self,
        _descriptors: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        tasks: usize,
    ) {
        let started = self.inner.iter_mut().map(|listening| {
            let descriptors = Some(Arc::clone(&self.descriptors));
            Service::start_service(listening, descriptors, self.shutdown.clone(), tasks)
        });
        join_all(started).await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.clone())
    }
}
