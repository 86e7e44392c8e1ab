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
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening::Service as Listening;

/// The listening sockets of a process: those that it was handed by the process before it, and those
/// that it can hand to the next.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Not yet asked for.
    inherited: Mutex<Vec<(SocketAddr, TcpListener)>>,
    /// The same sockets as those that are served.
    kept: Mutex<Vec<(SocketAddr, TcpListener)>>,
}

impl Sockets {
    /// Of a process that was handed these.
    pub fn inheriting(sockets: Vec<(SocketAddr, TcpListener)>) -> Self {
        Self {
            inherited: Mutex::new(sockets),
            kept: Mutex::default(),
        }
    }

    /// The socket at `address`: the one that was handed over, with the connections that wait in its
    /// queue, or a new one.
    pub fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut inherited = self.inherited.lock();
        let known = inherited.iter().position(|(known, _)| *known == address);
        let listener = match known {
            Some(index) => inherited.swap_remove(index).1,
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        self.kept.lock().push((address, listener.try_clone()?));
        Ok(listener)
    }

    /// All that are served, by the address that was asked for.
    pub fn to_hand_over(&self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let kept = self.kept.lock();
        let clone = |(address, listener): &(SocketAddr, TcpListener)| Ok((*address, listener.try_clone()?));
        kept.iter().map(clone).collect()
    }

    /// Closes what nobody asked for.
    pub fn close_unused(&self) {
        self.inherited.lock().clear();
    }

    /// Closes those that were kept to be handed over: where nobody serves them any more, whoever
    /// connects is refused.
    pub fn let_go(&self) {
        self.kept.lock().clear();
    }
}

/// A bound address.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
    read_buffer: usize,
}

/// What of a TLS connection is read at once: a record.
const TLS_READ_BUFFER: usize = 16 << 10;

impl Bound {
    pub(crate) fn bind(sockets: &Sockets, address: SocketAddr) -> io::Result<Self> {
        let listener = sockets.bind(address)?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            // What reads HTTP has a buffer of its own. Pingora's default would be 64 KiB for each
            // connection as long as it is open, idle or not.
            read_buffer: 0,
        })
    }

    /// For connections of which TLS is read, a few bytes at a time.
    pub(crate) fn for_tls(self) -> Self {
        Self {
            read_buffer: TLS_READ_BUFFER,
            ..self
        }
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
        for (app, bound) in bound {
            let Bound {
                listener,
                address,
                read_buffer,
            } = bound;
            let address = address.to_string();
            let mut listening = Listening::new(name.to_owned(), app);
            let buffers = L4BufferSettings::default().read(read_buffer);
            listening.add_listener(ListenerConfig::tcp(&address).l4_buffer(buffers));
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
