//! The way of a client certificate: the grants say which service one of its names is, and everything
//! after is as for an API key.

use std::sync::Arc;

use super::{Inquiry, LivePrincipal};
use crate::api_key::{GrantStanding, GrantedKey};
use crate::client_certificate::ClientCertificate;
use crate::revocation::Revocations;
use crate::route::Route;
use crate::trace::{Outcome, Step, Trace};
use crate::{Reason, Rejection};

impl<R: Revocations + ?Sized> Inquiry<'_, '_, R> {
    pub(super) fn certified<T: Trace>(
        &self,
        route: &Route,
        certificate: &ClientCertificate,
        trace: &mut T,
    ) -> Result<LivePrincipal, Rejection> {
        if !certificate.is_valid_at(self.now) {
            let cause = "the certificate's time has passed since the handshake";
            return Err(Rejection::new(Reason::CertificateExpired, cause));
        }
        let key = self.granted_certificate(certificate, trace)?;
        // What is open ends with the certificate.
        let key = Arc::new(key.until(certificate.ends_at()));
        self.live_service(route, key, trace)
    }

    /// The one grant of a certificate's names. With two of them nobody could say which scopes hold,
    /// nor be sure to have taken access away by revoking one.
    fn granted_certificate<T: Trace>(
        &self,
        certificate: &ClientCertificate,
        trace: &mut T,
    ) -> Result<Arc<GrantedKey>, Rejection> {
        let mut granted: Option<Arc<GrantedKey>> = None;
        let mut is_unknown = false;
        for name in certificate.names() {
            let digest = name.digest();
            let key = match self.revocations.granted_key(&digest) {
                GrantStanding::Known(key) if key.digest() == digest => key,
                GrantStanding::Known(_) => {
                    let cause = "the grants gave another key than was asked for";
                    return Err(Rejection::new(Reason::Internal, cause));
                }
                GrantStanding::Absent => continue,
                GrantStanding::Unknown { .. } => {
                    is_unknown = true;
                    continue;
                }
            };
            trace.step(|| {
                let detail = format!("{} is of service {}", name.as_str(), key.service());
                Step::new("grant", Outcome::Hit, detail)
            });
            if granted.replace(key).is_some() {
                let cause = "several names of the certificate have a grant: revoke all but one";
                return Err(Rejection::new(Reason::CertificateUnknown, cause));
            }
        }
        // With stale news names without a grant are not known to be without: the one that has one counts.
        match granted {
            Some(key) => Ok(key),
            None if is_unknown => Err(Rejection::new(
                Reason::RevocationUnknown,
                "not all grants are known here, or their news is stale",
            )),
            None => Err(Rejection::new(
                Reason::CertificateUnknown,
                format!(
                    "nobody was granted a name of the certificate: {:?}",
                    certificate.names()
                ),
            )),
        }
    }
}
