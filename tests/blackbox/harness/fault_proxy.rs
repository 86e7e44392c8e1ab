//! A TCP proxy that breaks what goes through it, as it is told: between a gateway and its Redis.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::ports::free_address;

/// How often a direction that is held looks whether it is let go.
const LOOK: Duration = Duration::from_millis(5);
/// How long a read waits before the direction looks at the fault again.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// What is done to connections, new and old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// New connections are closed, old ones too.
    Refuse,
    /// Old connections are reset; new ones pass.
    Reset,
    /// What is sent is held, in both directions, without a word; it arrives once that ends.
    BlackHole,
    /// What the client sends arrives so much later.
    Delay(Duration),
    /// The server is not asked: each piece that the client sends is answered with these bytes.
    Answer(Vec<u8>),
    /// Half of the server's next piece arrives, then the connection ends.
    Truncate,
}

/// A running proxy. It ends with the test's process.
#[derive(Clone, Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    server: SocketAddr,
    /// Counts up with each reset: connections that are older end.
    resets: u64,
}

impl FaultProxy {
    /// A proxy for `server`, without a fault.
    pub fn before(server: SocketAddr) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).unwrap();
        let fault = Arc::new(Mutex::new(State {
            fault: Fault::None,
            server,
            resets: 0,
        }));
        let proxy = Self { address, fault };
        let accepting = proxy.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepting.connect(stream);
            }
        });
        proxy
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks connections this way from now on.
    pub fn set(&self, fault: Fault) {
        let mut state = self.fault.lock().unwrap();
        if matches!(fault, Fault::Reset | Fault::Refuse) {
            state.resets += 1;
        }
        state.fault = fault;
    }

    fn fault(&self) -> Fault {
        self.fault.lock().unwrap().fault.clone()
    }

    fn resets(&self) -> u64 {
        self.fault.lock().unwrap().resets
    }

    fn connect(&self, client: TcpStream) {
        let (fault, server, resets) = {
            let state = self.fault.lock().unwrap();
            (state.fault.clone(), state.server, state.resets)
        };
        if fault == Fault::Refuse {
            return;
        }
        let Ok(server) = TcpStream::connect(server) else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        }
        let directions = [
            (client.try_clone().unwrap(), server.try_clone().unwrap(), true),
            (server, client, false),
        ];
        for (from, to, asks) in directions {
            let proxy = self.clone();
            thread::spawn(move || {
                proxy.carry(&from, &to, asks, resets);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    /// Carries one direction until it ends; `asks` is the client's.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, asks: bool, resets: u64) {
        let mut piece = [0; 16 << 10];
        loop {
            if self.resets() != resets {
                for stream in [from, to] {
                    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
                return;
            }
            let count = match from.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => return,
            };
            if self.resets() != resets {
                // What came meanwhile does not pass any more.
                continue;
            }
            match self.fault() {
                Fault::Delay(delay) if asks => thread::sleep(delay),
                Fault::Answer(bytes) if asks => {
                    if from.write_all(&bytes).is_err() {
                        return;
                    }
                    continue;
                }
                Fault::Truncate if !asks => {
                    let _ = to.write_all(&piece[..count / 2]);
                    return;
                }
                Fault::BlackHole => {
                    while self.fault() == Fault::BlackHole {
                        thread::sleep(LOOK);
                    }
                }
                _ => {}
            }
            if to.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
