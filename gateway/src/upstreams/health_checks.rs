//! Asking the servers whether they are well.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use http::Uri;
use http::header::HOST;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Count, Upstream};
use crate::proxy::Shared;
use crate::upstream_config::{HealthCheckConfig, Protocol};

/// The most bytes of an answer that are looked at; the status comes before them.
const MAX_BODY: usize = 64 << 10;

/// Asks the servers of each upstream that wants it, of whatever generation is current.
pub(crate) struct HealthKeeper(pub(crate) Arc<Shared>);

#[async_trait]
impl BackgroundService for HealthKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut changes = self.0.changes();
        let mut checks = JoinSet::new();
        let mut asked: Vec<Arc<Upstream>> = Vec::new();
        loop {
            changes.mark_unchanged();
            let current = self.0.current();
            let wanted = current
                .upstreams
                .iter()
                .filter(|upstream| upstream.health_check.is_some());
            let wanted: Vec<_> = wanted.map(Arc::clone).collect();
            drop(current);
            let is_new = |upstream: &&Arc<Upstream>| !asked.iter().any(|known| Arc::ptr_eq(known, upstream));
            for upstream in wanted.iter().filter(is_new) {
                checks.spawn(check_while_used(Arc::downgrade(upstream)));
            }
            asked = wanted;
            tokio::select! {
                _ = shutdown.changed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            while checks.try_join_next().is_some() {}
        }
    }
}

/// Asks the servers of an upstream until nobody has the upstream any more.
pub(crate) async fn check_while_used(upstream: Weak<Upstream>) {
    let Some(mut ticks) = upstream.upgrade().and_then(|upstream| {
        let config = upstream.health_check.as_ref()?;
        Some(interval(config.interval))
    }) else {
        return;
    };
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let connector = Connector::new(None);
    loop {
        ticks.tick().await;
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        upstream.check_servers(&connector).await;
    }
}

impl Upstream {
    async fn check_servers(&self, connector: &Connector) {
        let Some(config) = &self.health_check else { return };
        join_all((0..self.servers.len()).map(|index| self.check_server(config, index, connector))).await;
    }

    async fn check_server(&self, config: &HealthCheckConfig, index: usize, connector: &Connector) {
        let server = &self.servers[index];
        let mut peer = server.peer.clone();
        peer.options.connection_timeout = Some(config.timeout);
        peer.options.total_connection_timeout = Some(config.timeout);
        let asked = timeout(config.timeout, self.ask(config, &peer, connector)).await;
        let well = matches!(&asked, Ok(Ok(())));
        let count = if well {
            Count::ChecksPassed
        } else {
            Count::ChecksFailed
        };
        self.counts.add(count, index);
        if !server
            .health
            .checked(well, config.unhealthy_after, config.healthy_after)
        {
            return;
        }
        match asked {
            Ok(Ok(())) => {
                tracing::info!(upstream = %self.name, server = %server.address, "a server is well");
            }
            Ok(Err(error)) => {
                tracing::warn!(upstream = %self.name, server = %server.address, %error, "a server is not well");
            }
            Err(_) => {
                tracing::warn!(upstream = %self.name, server = %server.address, "a server is not well: it does not answer in time");
            }
        }
    }

    async fn ask(
        &self,
        config: &HealthCheckConfig,
        peer: &HttpPeer,
        connector: &Connector,
    ) -> pingora::Result<()> {
        let (mut session, _) = connector.get_http_session(peer).await?;
        session.set_read_timeout(Some(config.timeout));
        session.set_write_timeout(Some(config.timeout));
        let request = self.check_request(config, peer, &session)?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session
            .response_header()
            .map_or(0, |response| response.status.as_u16());
        if !config.statuses.contains(&status) {
            return Error::e_explain(ErrorType::HTTPStatus(status), "the health check's answer");
        }
        let mut read = 0;
        while let Some(piece) = session.read_response_body().await? {
            read += piece.len();
            if read > MAX_BODY {
                return Ok(());
            }
        }
        // A connection of HTTP/1.1 is made anew for each question: one that is kept may be closed by the
        // server between two, which says nothing of its health.
        if matches!(session, HttpSession::H2(_)) {
            connector
                .release_http_session(session, peer, Some(KEPT_FOR))
                .await;
        }
        Ok(())
    }

    fn check_request(
        &self,
        config: &HealthCheckConfig,
        peer: &HttpPeer,
        session: &HttpSession,
    ) -> pingora::Result<RequestHeader> {
        let host = match &config.host {
            Some(host) => host.to_str().unwrap_or_default().to_owned(),
            None if peer.is_tls() => peer.sni.clone(),
            None => peer._address.to_string(),
        };
        let mut request = RequestHeader::build("GET", config.path.as_bytes(), None)?;
        if self.protocol == Protocol::H2 && matches!(session, HttpSession::H2(_)) {
            let scheme = if peer.is_tls() { "https" } else { "http" };
            let uri = Uri::builder()
                .scheme(scheme)
                .authority(host)
                .path_and_query(config.path.as_str())
                .build()
                .map_err(|error| {
                    Error::because(ErrorType::InternalError, "a health check's target", error)
                })?;
            request.set_version(http::Version::HTTP_2);
            request.set_uri(uri);
        } else {
            request.insert_header(HOST, host)?;
        }
        request.insert_header("user-agent", "durward-health-check")?;
        for header in &self.fixed.headers {
            request.insert_header(header.name.clone(), header.value.clone())?;
        }
        Ok(request)
    }
}

/// How long a connection is kept for the next question.
const KEPT_FOR: Duration = Duration::from_secs(60);
