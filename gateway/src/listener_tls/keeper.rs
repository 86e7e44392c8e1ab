//! Certificates are read again when their files change. What is bad stays aside: the old one is shown
//! on, and the log and a metric say why.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::TlsListener;
use super::certificate::{Certificate, Content};
use super::certificate_table::CertificateTable;
use super::client_authorities::ClientAuthorities;

/// How often the files are looked at. A change counts once it was there twice: certificate and key
/// are two files, and between their changes they do not fit.
const INTERVAL: Duration = Duration::from_secs(1);

type Digest = [u8; 32];

/// Looks at the files of all listeners.
pub(crate) struct CertificateKeeper(pub(crate) Vec<Arc<TlsListener>>);

#[async_trait]
impl BackgroundService for CertificateKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if self.0.is_empty() {
            return;
        }
        let mut watched: Vec<_> = self.0.iter().map(Watched::new).collect();
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            // Files may be on a disk that does not answer.
            let looked = tokio::task::spawn_blocking(move || {
                watched.iter_mut().for_each(Watched::look);
                watched
            });
            let Ok(back) = looked.await else {
                tracing::error!("certificates are no longer read again: looking at their files has failed");
                return;
            };
            watched = back;
        }
    }
}

/// A file, or a pair of files, as far as it was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// What is in force, or was found to be of no use.
    settled: Option<Digest>,
    /// What is in force.
    in_force: Option<Digest>,
    /// What was there at the last look.
    last: Option<Digest>,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Same,
    /// What is in force is there again.
    Restored,
    /// Something new, and it has stayed.
    Changed,
}

impl Seen {
    fn in_force(digest: Option<Digest>) -> Self {
        Self {
            settled: digest,
            in_force: digest,
            last: digest,
        }
    }

    fn look(&mut self, digest: Option<Digest>) -> Look {
        let stayed = std::mem::replace(&mut self.last, digest) == digest;
        if digest == self.settled || !stayed {
            return Look::Same;
        }
        self.settled = digest;
        if digest == self.in_force {
            Look::Restored
        } else {
            Look::Changed
        }
    }

    fn took(&mut self) {
        self.in_force = self.settled;
    }
}

struct Watched {
    listener: Arc<TlsListener>,
    certificates: Vec<Seen>,
    clients: Seen,
}

impl Watched {
    fn new(listener: &Arc<TlsListener>) -> Self {
        // What was read at the start. What has changed since is seen at the next look.
        let table = listener.certificates.table();
        let clients = listener.clients_digest;
        Self {
            certificates: table
                .all()
                .iter()
                .map(|certificate| Seen::in_force(Some(certificate.digest)))
                .collect(),
            clients: Seen::in_force(clients),
            listener: Arc::clone(listener),
        }
    }

    fn look(&mut self) {
        for index in 0..self.certificates.len() {
            self.look_at_certificate(index);
        }
        self.look_at_clients();
    }

    fn look_at_certificate(&mut self, index: usize) {
        let listener = &self.listener;
        let files = &listener.config.certificates[index];
        let content = Content::read(files);
        let digest = content.as_ref().ok().map(Content::digest);
        let seen = &mut self.certificates[index];
        match seen.look(digest) {
            Look::Same => return,
            Look::Restored => {
                listener.counts.restored(index);
                return;
            }
            Look::Changed => {}
        }
        let path = files.certificate.display();
        match content.and_then(|content| Certificate::of(&content, files)) {
            Ok(certificate) => {
                seen.took();
                tracing::info!(certificate = %path, names = ?certificate.names, "a new certificate is shown");
                let mut all = listener.certificates.table().all().to_vec();
                all[index] = Arc::new(certificate);
                listener.certificates.replace(CertificateTable::new(all));
                listener.counts.reloaded(index, true);
            }
            Err(error) => {
                tracing::error!(certificate = %path, %error, "the certificate that is there now cannot be used: the one before is shown on");
                listener.counts.reloaded(index, false);
            }
        }
    }

    fn look_at_clients(&mut self) {
        let listener = &self.listener;
        let Some(config) = &listener.config.clients else {
            return;
        };
        let digest = ClientAuthorities::digest_now(config).ok();
        let authorities = self.certificates.len();
        match self.clients.look(digest) {
            Look::Same => return,
            Look::Restored => {
                listener.counts.restored(authorities);
                return;
            }
            Look::Changed => {}
        }
        let path = config.ca.display();
        match ClientAuthorities::read(config).and_then(|clients| listener.believe(clients)) {
            Ok(()) => {
                self.clients.took();
                listener.counts.reloaded(authorities, true);
                tracing::info!(ca = %path, "new authorities of client certificates are believed");
            }
            Err(error) => {
                tracing::error!(ca = %path, %error, "the authorities that are there now cannot be used: those before are believed on");
                listener.counts.reloaded(authorities, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_stayed() {
        let mut seen = Seen::in_force(Some([0; 32]));
        assert_eq!(seen.look(Some([0; 32])), Look::Same);
        assert_eq!(
            seen.look(Some([1; 32])),
            Look::Same,
            "the key may not be there yet"
        );
        assert_eq!(seen.look(Some([2; 32])), Look::Same);
        assert_eq!(seen.look(Some([2; 32])), Look::Changed);
        assert_eq!(seen.look(Some([2; 32])), Look::Same, "told once");
        assert_eq!(seen.look(Some([0; 32])), Look::Same);
        assert_eq!(seen.look(Some([0; 32])), Look::Restored, "it was not taken");
        assert_eq!(seen.look(None), Look::Same);
        assert_eq!(seen.look(None), Look::Changed, "the files are gone");
        assert_eq!(seen.look(Some([3; 32])), Look::Same);
        assert_eq!(seen.look(Some([3; 32])), Look::Changed);
        seen.took();
        assert_eq!(seen.look(Some([3; 32])), Look::Same);
        assert_eq!(seen.look(Some([3; 32])), Look::Same);
    }
}
