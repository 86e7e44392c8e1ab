//! Tokens of a real OpenID provider (oidc-provider), whose keys the gateway reads where it publishes
//! them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{Answer, Backend, Service, Setup, TestFolder, eventually, free_address, get, post};

const CONFIGURATION: &str = r#"
listen: "@edge"
admin: "@admin"
control: control.sock
access_log: off
issuers:
  - issuer: http://@provider
    jwks: http://@provider/jwks
    audience: api
    algorithms: [ES256]
    jwks_cooldown: 1s
revocations: none
identity_headers:
  X-User-Id: sub
upstreams:
  api: { servers: ["@api"] }
routes:
  - { path: /api/**, upstream: api }
  - { path: /api/write/**, upstream: api, require: { scope: write } }
"#;

/// `reporter:a secret of the tests`, as RFC 6749 section 2.3.1 has it.
const CLIENT: &str = "Basic cmVwb3J0ZXI6YSUyMHNlY3JldCUyMG9mJTIwdGhlJTIwdGVzdHM=";

/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// The provider as a process, ended with its test.
struct Provider {
    child: Child,
    address: SocketAddr,
    folder: TestFolder,
}

impl Provider {
    /// With these keys, of which the first one signs.
    fn start(keys: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = root.join("target/test-tools/oidc-provider/node_modules");
        assert!(
            modules.join("oidc-provider").exists(),
            "there is no oidc-provider; `make test-tools` installs it"
        );
        let folder = TestFolder::new();
        fs::copy(
            root.join("tests/oidc-provider/provider.mjs"),
            folder.join("provider.mjs"),
        )
        .unwrap();
        symlink(modules, folder.join("node_modules")).unwrap();
        let address = free_address();
        let child = launch(&folder, address, keys);
        let mut provider = Self {
            child,
            address,
            folder,
        };
        provider.wait_until_up();
        provider
    }

    /// Ends it, and starts it at the same address with other keys.
    fn rotate(&mut self, keys: &str) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = launch(&self.folder, self.address, keys);
        self.wait_until_up();
    }

    fn wait_until_up(&mut self) {
        eventually("the provider answers", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.folder.text("provider.log"));
            let answer = get("/jwks").send_if_answered(self.address)?;
            (answer.status == 200).then_some(())
        });
    }

    /// A token that the client gets for itself.
    fn token(&self, resource: &str, scope: &str) -> String {
        let body = format!("grant_type=client_credentials&resource=urn:{resource}&scope={scope}");
        let ask = post("/token")
            .header("Authorization", CLIENT)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body);
        let answer: Value = ask.send(self.address).expect(200).json();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// The tokens that a user gets by the code flow, with a browser that keeps every cookie.
    fn log_in(&self, user: &str) -> Value {
        let mut cookies: Vec<String> = Vec::new();
        let mut place = format!(
            "/auth?client_id=web&response_type=code&scope=openid%20read&resource=urn:api\
             &redirect_uri=https%3A%2F%2Fapp.test%2Fcallback&login_hint={user}\
             &code_challenge={CHALLENGE}&code_challenge_method=S256"
        );
        let code = loop {
            let answer = get(&place)
                .header("Cookie", cookies.join("; "))
                .send(self.address);
            assert!(matches!(answer.status, 302 | 303), "{place}: {}", answer.text());
            let set = answer
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
            cookies.extend(set.filter_map(|(_, value)| Some(value.split(';').next()?.to_owned())));
            let location = answer.header("location");
            if let Some((_, code)) = location.split_once("/callback?code=") {
                break code.split('&').next().unwrap().to_owned();
            }
            let here = format!("http://{}", self.address);
            place = location.strip_prefix(&here).unwrap_or(location).to_owned();
            assert!(place.starts_with('/'), "{location}");
        };
        let body = format!(
            "grant_type=authorization_code&client_id=web&code={code}&code_verifier={VERIFIER}\
             &redirect_uri=https%3A%2F%2Fapp.test%2Fcallback"
        );
        let ask = post("/token")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body);
        ask.send(self.address).expect(200).json()
    }

    fn gateway(&self, backend: &Backend) -> Service {
        Setup::gateway(CONFIGURATION)
            .set("provider", self.address)
            .api(backend)
            .start()
    }
}

fn launch(folder: &TestFolder, address: SocketAddr, keys: &str) -> Child {
    let log = fs::File::create(folder.join("provider.log")).unwrap();
    let mut command = Command::new("node");
    command
        .args(["provider.mjs", &address.port().to_string(), keys])
        .current_dir(&**folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let spawned = command.spawn();
    spawned.unwrap_or_else(|error| panic!("node: {error}; `make test-tools` installs it"))
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the provider said\n{}", self.folder.text("provider.log"));
        }
    }
}

fn ask(service: &Service, token: &str) -> Answer {
    service.ask(&get("/api/x").bearer(token))
}

#[test]
fn a_providers_token_is_accepted_for_what_it_says() {
    let (provider, backend) = (Provider::start("first"), Backend::start());
    let service = provider.gateway(&backend);
    let token = provider.token("api", "read");
    ask(&service, &token).expect(200);
    let request = backend.take_one();
    assert_eq!(request.values("x-user-id"), ["reporter"]);
    assert!(request.values("authorization").is_empty());

    service
        .ask(&get("/api/write/x").bearer(&token))
        .expect_refusal(403, "insufficient_scope");
    let more = provider.token("api", "read+write");
    service.ask(&get("/api/write/x").bearer(&more)).expect(200);
    // For another API, or not to be read by anybody but the provider.
    ask(&service, &provider.token("other", "read")).expect_refusal(401, "wrong_audience");
    ask(&service, &provider.token("opaque", "read")).expect_refusal(401, "token_malformed");
    // Another provider of the same kind signs with keys of its own, under the same name.
    let stranger = Provider::start("first");
    ask(&service, &stranger.token("api", "read")).expect_refusal(401, "unknown_issuer");
}

#[test]
fn a_users_access_token_opens_and_the_id_token_beside_it_does_not() {
    let (provider, backend) = (Provider::start("first"), Backend::start());
    let service = provider.gateway(&backend);
    let tokens = provider.log_in("alice");
    let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
    ask(&service, &text("access_token")).expect(200);
    assert_eq!(backend.take_one().values("x-user-id"), ["alice"]);
    ask(&service, &text("id_token")).expect_refusal(401, "token_type");
    assert!(backend.take().is_empty());
}

#[test]
fn a_providers_keys_are_followed_when_they_change() {
    let (mut provider, backend) = (Provider::start("first"), Backend::start());
    let service = provider.gateway(&backend);
    let old = provider.token("api", "read");
    ask(&service, &old).expect(200);

    // A new key signs, and the old one is still published.
    provider.rotate("second,first");
    let new = provider.token("api", "read");
    eventually("the new key is known", || {
        (ask(&service, &new).status == 200).then_some(())
    });
    ask(&service, &old).expect(200);

    // The old one is withdrawn; a key that is not known yet has the set read again.
    provider.rotate("third,second");
    let newest = provider.token("api", "read");
    eventually("the newest key is known", || {
        (ask(&service, &newest).status == 200).then_some(())
    });
    ask(&service, &new).expect(200);
    ask(&service, &old).expect_refusal(401, "unknown_key");

    // While the provider is away, what is known is enough.
    drop(provider);
    ask(&service, &newest).expect(200);
}
