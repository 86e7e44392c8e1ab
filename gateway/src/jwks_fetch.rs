//! One JWKS by HTTP, over Pingora's own client: no second TLS stack, no redirects, bounded in time
//! and size.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Uri, header};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use crate::secret::MAX_SECRET_BYTES;

/// Within which the whole exchange must be done.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of the host that are tried.
const MAX_ADDRESSES: usize = 4;
/// Largest body.
pub(crate) const MAX_JWKS_BYTES: usize = MAX_SECRET_BYTES as usize;

/// Fetches JWKS documents.
pub(crate) struct JwksClient {
    connector: Connector,
    timeout: Duration,
}

impl JwksClient {
    pub(crate) fn new() -> Self {
        Self {
            connector: Connector::new(None),
            timeout: TIMEOUT,
        }
    }

    /// The document at `url`. The error is for the log.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let target = Target::parse(url)?;
        match tokio::time::timeout(self.timeout, self.fetch_target(&target)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }

    async fn fetch_target(&self, target: &Target) -> Result<Vec<u8>, String> {
        let addresses = tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(|error| format!("cannot look up {}: {error}", target.host))?;
        let mut last = format!("{} has no address", target.host);
        for address in addresses.take(MAX_ADDRESSES) {
            match self.connector.get_http_session(&target.peer(address)).await {
                Ok((mut session, _)) => return exchange(&mut session, target).await,
                Err(error) => last = format!("cannot connect to {address}: {error}"),
            }
        }
        Err(last)
    }
}

async fn exchange(session: &mut HttpSession, target: &Target) -> Result<Vec<u8>, String> {
    let failed = |error: Box<pingora::Error>| error.to_string();
    session
        .write_request_header(Box::new(target.request().map_err(failed)?))
        .await
        .map_err(failed)?;
    session.finish_request_body().await.map_err(failed)?;
    session.read_response_header().await.map_err(failed)?;
    check(session.response_header().ok_or("no response header")?)?;
    let mut body = Vec::new();
    while let Some(piece) = session.read_response_body().await.map_err(failed)? {
        if body.len() + piece.len() > MAX_JWKS_BYTES {
            return Err(format!("the body is larger than {MAX_JWKS_BYTES} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn check(response: &ResponseHeader) -> Result<(), String> {
    if response.status != http::StatusCode::OK {
        return Err(format!(
            "the answer is {}; redirects are not followed",
            response.status.as_u16()
        ));
    }
    if response.headers.contains_key(header::CONTENT_ENCODING) {
        return Err("the body is compressed, which nobody asked for".into());
    }
    let Some(content_type) = response.headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let media_type = content_type
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    if media_type == "application/json" || media_type.ends_with("+json") || media_type == "text/plain" {
        return Ok(());
    }
    Err(format!(
        "the body is not JSON but `{}`",
        media_type.escape_debug()
    ))
}

/// A URL, taken apart.
#[derive(Debug)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the URL is neither https nor http".into()),
        };
        let authority = uri.authority().ok_or("the URL has no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL holds a user name".into());
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            tls,
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, self.tls, self.host.clone());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.total_connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.read_timeout = Some(TIMEOUT);
        peer.options.write_timeout = Some(TIMEOUT);
        peer
    }

    fn request(&self) -> Result<RequestHeader, Box<pingora::Error>> {
        let mut request = RequestHeader::build("GET", self.path.as_bytes(), Some(4))?;
        request.insert_header(header::HOST, &self.authority)?;
        request.insert_header(header::ACCEPT, "application/jwk-set+json, application/json")?;
        request.insert_header(header::USER_AGENT, "durward")?;
        request.insert_header(header::CONNECTION, "close")?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::TinyServer;

    #[tokio::test]
    async fn a_document_is_fetched() {
        let server = TinyServer::start(|_| {
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".into()
        });
        let url = format!("http://{}/keys?v=1", server.address());
        assert_eq!(JwksClient::new().fetch(&url).await.unwrap(), b"{}");
        let request = server.requests().pop().unwrap();
        assert!(request.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{request}");
        assert!(
            request
                .to_lowercase()
                .contains(&format!("host: {}", server.address())),
            "{request}"
        );
    }

    #[tokio::test]
    async fn what_is_not_a_jwks_is_an_error() {
        for (answer, expected) in [
            (
                "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
                "302",
            ),
            ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "500"),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}",
                "not JSON",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
                "compressed",
            ),
            ("garbage\r\n\r\n", ""),
            ("", ""),
        ] {
            let server = TinyServer::start(move |_| answer.into());
            let error = JwksClient::new()
                .fetch(&format!("http://{}/", server.address()))
                .await
                .unwrap_err();
            assert!(error.contains(expected), "{answer}: {error}");
        }
    }

    #[tokio::test]
    async fn the_size_is_bounded_whatever_the_header_says() {
        for header in [
            format!("Content-Length: {}\r\n", MAX_JWKS_BYTES + 1),
            String::new(),
        ] {
            let body = " ".repeat(MAX_JWKS_BYTES + 1);
            let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\n{body}");
            let server = TinyServer::start(move |_| answer.clone());
            let error = JwksClient::new()
                .fetch(&format!("http://{}/", server.address()))
                .await
                .unwrap_err();
            assert!(error.contains("larger than"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_stalls_or_trickles_is_given_up() {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        for (begins_with, trickles) in [(&b""[..], false), (HEAD, false), (HEAD, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let server = tokio::spawn(async move {
                let (mut client, _) = listener.accept().await.unwrap();
                client.write_all(begins_with).await.unwrap();
                while !trickles || client.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            let client = JwksClient {
                timeout: Duration::from_millis(300),
                ..JwksClient::new()
            };
            let error = client.fetch(&url).await.unwrap_err();
            assert_eq!(error, "no answer within 300ms");
            server.abort();
        }
    }

    #[test]
    fn urls_are_http_and_hold_no_user() {
        for bad in [
            "file:///etc/passwd",
            "ftp://a/b",
            "/path",
            "http://user:pw@host/",
            "",
            "https://",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        let target = Target::parse("https://[::1]/a").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.tls),
            ("::1", 443, true)
        );
    }
}
