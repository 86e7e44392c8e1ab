//! Listening addresses, bound early so that a taken port is an error with its address and not a
//! panic of a worker, and handed to Pingora by file descriptor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use async_trait::async_trait;
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

/// A Pingora service on bound addresses, with a shutdown signal of its own: the gateway drains it
/// before the server is told to end.
pub(crate) struct BoundService<A> {
    inner: Listening<A>,
    descriptors: ListenFds,
    addresses: Vec<String>,
    shutdown: ShutdownWatch,
    threads: Option<usize>,
}

impl<A> BoundService<A> {
    pub(crate) fn new(
        name: &str,
        app: A,
        bound: Vec<Bound>,
        threads: Option<usize>,
        shutdown: ShutdownWatch,
    ) -> Self {
        let mut inner = Listening::new(name.to_owned(), app);
        let mut descriptors = Fds::new();
        let mut addresses = Vec::new();
        for Bound { listener, address } in bound {
            let address = address.to_string();
            inner.add_tcp(&address);
            descriptors.add(address.clone(), listener.into_raw_fd());
            addresses.push(address);
        }
        Self {
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
        let descriptors = Some(Arc::clone(&self.descriptors));
        Service::start_service(&mut self.inner, descriptors, self.shutdown.clone(), tasks).await;
    }

    fn name(&self) -> &str {
        Service::name(&self.inner)
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.clone())
    }
}
