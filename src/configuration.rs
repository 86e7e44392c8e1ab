//! The configuration file as a whole: reading it, and handing each crate its section.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use durward_auth::{AuthConfig, SigningAlgorithm};
use durward_config::{Diagnostic, Diagnostics, Document, MAX_DOCUMENT_BYTES, Node, Place, Section, Severity};
use durward_gateway::{GatewayConfig, GatewaySections};
use durward_news::RedisTarget;
use durward_policy::{
    Algorithm, DigestKey, OwnIssuer, Policy, PolicySections, canonical, publishes_revocations,
};
use serde_json::Value;

use crate::control::{self, client::ControlClient};
use crate::demo::DemoConfig;
use crate::exit::Failure;

/// Where the control socket is when the file does not say.
const DEFAULT_CONTROL_SOCKET: &str = "data/control.sock";

/// Which parts of the file the process is going to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whatever the file describes: `check`, `explain` and `up`.
    Whole,
    /// The gateway without an auth service in its process.
    GatewayAlone,
}

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// Where the control socket is.
    pub control: PathBuf,
    /// The auth service, where the file has one and the role runs it.
    pub auth: Option<AuthConfig>,
    /// The gateway.
    pub gateway: GatewayConfig,
    /// Its policy.
    pub policy: Policy,
    /// The Redis that carries revocations, or that is asked for them, where the file names one.
    pub redis: Option<RedisTarget>,
    /// The demo, where the file has one.
    pub demo: Option<DemoConfig>,
    /// How the file is taken over again.
    pub reload: ReloadConfig,
    /// The file.
    pub document: Document,
}

/// `reload:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadConfig {
    /// Whether a change of the file is taken over without being asked.
    pub watch: bool,
}

/// Reads and compiles a file for the whole of what it describes. The diagnostics hold warnings even
/// where the file can be used.
pub fn load(path: &Path) -> Result<(Option<Loaded>, Diagnostics), Failure> {
    let (mut loaded, mut diagnostics) = load_for(path, Role::Whole, random_digest_key())?;
    let keys = loaded
        .as_ref()
        .map(|loaded| durward_gateway::check_keys(&loaded.policy, folder_of(path)));
    if let Some(Err(problem)) = keys {
        let advice = "a start would fail on it";
        diagnostics.error(Place::default(), problem, advice);
        loaded = None;
    }
    Ok((loaded, diagnostics))
}

/// Reads and compiles a file, or fails with all that is wrong with it. Warnings go to the log.
pub fn load_or_fail(path: &Path, role: Role) -> Result<Loaded, Failure> {
    let (loaded, diagnostics) = load_for(path, role, random_digest_key())?;
    match loaded {
        Some(loaded) => {
            diagnostics
                .iter()
                .for_each(|item| tracing::warn!("{}: {}", item.place, item.message));
            Ok(loaded)
        }
        None => Err(Failure::No(format!(
            "{} cannot be used\n{diagnostics}",
            path.display()
        ))),
    }
}

/// Reads and compiles a file again for a process that keys revocations by `digest_key`, or yields all
/// that is wrong with it. Warnings go to the log.
pub fn load_again(path: &Path, role: Role, digest_key: DigestKey) -> Result<Loaded, Vec<String>> {
    let (loaded, diagnostics) =
        load_for(path, role, digest_key).map_err(|failure| vec![failure.to_string()])?;
    let said = |item: &Diagnostic| match item.advice.is_empty() {
        true => format!("{}:{}: {}", path.display(), item.place, item.message),
        false => format!(
            "{}:{}: {}; {}",
            path.display(),
            item.place,
            item.message,
            item.advice
        ),
    };
    let (errors, warnings): (Vec<_>, Vec<_>) = diagnostics
        .iter()
        .partition(|item| item.severity == Severity::Error);
    match loaded {
        Some(loaded) => {
            for warning in warnings {
                tracing::warn!("{}", said(warning));
            }
            Ok(loaded)
        }
        None => Err(errors.into_iter().map(said).collect()),
    }
}

/// What `durward auth` needs of a file.
#[derive(Debug)]
pub struct LoadedAuth {
    /// Where the control socket is.
    pub control: PathBuf,
    /// The auth service.
    pub auth: AuthConfig,
    /// The Redis that its revocations go to, where the file names one. That of `mode: lookup` is the
    /// application's own, and none.
    pub redis: Option<RedisTarget>,
}

/// Reads a file for `durward auth`: its `auth` section, its control socket and where revocations go.
/// What else stands in it is another process's.
pub fn load_auth(path: &Path) -> Result<LoadedAuth, Failure> {
    let document = read(path)?.map_err(|diagnostics| Failure::No(diagnostics.to_string()))?;
    let mut diagnostics = Diagnostics::default();
    let base = folder_of(path);
    let loaded = document
        .root()
        .section("the configuration", &mut diagnostics)
        .and_then(|mut file| {
            let control = control_path(&mut file, base, &mut diagnostics);
            let node = file.required("auth", "write the auth service's section", &mut diagnostics)?;
            let revocations = file
                .optional("revocations")
                .filter(|node| publishes_revocations(node, &mut diagnostics));
            let redis = redis_target(revocations, base, &mut diagnostics);
            Some(LoadedAuth {
                control,
                auth: AuthConfig::compile(node, base, &mut diagnostics)?,
                redis,
            })
        });
    match loaded {
        Some(loaded) if !diagnostics.has_errors() => Ok(loaded),
        _ => {
            let diagnostics = diagnostics.located_in(&document);
            Err(Failure::No(format!(
                "{} cannot be used\n{diagnostics}",
                path.display()
            )))
        }
    }
}

fn load_for(
    path: &Path,
    role: Role,
    digest_key: DigestKey,
) -> Result<(Option<Loaded>, Diagnostics), Failure> {
    let document = match read(path)? {
        Ok(document) => document,
        Err(diagnostics) => return Ok((None, diagnostics)),
    };
    let mut diagnostics = Diagnostics::default();
    let loaded = compile(&document, folder_of(path), role, digest_key, &mut diagnostics);
    let loaded = loaded.filter(|_| !diagnostics.has_errors());
    Ok((loaded, diagnostics.located_in(&document)))
}

fn read(path: &Path) -> Result<Result<Document, Diagnostics>, Failure> {
    let text = read_text(path)
        .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(Document::parse(&path.display().to_string(), &text))
}

/// One byte more than a document may have is enough to find that it is too long; what is no file may
/// have no end.
pub fn read_text(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    let most = MAX_DOCUMENT_BYTES as u64 + 1;
    std::fs::File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Relative paths of a file are relative to its folder.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Compiles every section, whatever the others hold, so that all errors are found in one go.
fn compile(
    document: &Document,
    base: &Path,
    role: Role,
    digest_key: DigestKey,
    diagnostics: &mut Diagnostics,
) -> Option<Loaded> {
    let root = document.root();
    let mut file = root.section("the configuration", diagnostics)?;
    let control = control_path(&mut file, base, diagnostics);
    let auth_node = file.optional("auth");
    let demo_node = file.optional("demo");
    let reload = compile_reload(file.optional("reload"), diagnostics);
    let gateway_sections = GatewaySections::take(&mut file);
    let upstreams = gateway_sections.upstreams;
    let policy_sections = PolicyNodes::take(&mut file);
    file.finish(diagnostics);

    let auth = auth_node.map(|node| AuthConfig::compile(node, base, diagnostics));
    let demo = demo_node.map(|node| DemoConfig::compile(node, base, diagnostics));
    let gateway = GatewayConfig::compile(gateway_sections, base, diagnostics);
    let own_issuer = match (role, &auth) {
        (_, Some(Some(auth))) => Some(own_issuer(auth, role)),
        // Its errors are reported; that others need it would only be said on top.
        (_, Some(None)) => Some(OwnIssuer {
            issuer: String::new(),
            audience: String::new(),
            algorithm: Algorithm::ES256,
            key_announce: Duration::MAX,
            in_process: true,
        }),
        (_, None) => None,
    };
    if let Some(gateway) = &gateway {
        policy_sections.refuse_shadowed_identity(gateway, diagnostics);
    }
    let auth_in_process = role == Role::Whole && own_issuer.is_some();
    let redis = redis_target(policy_sections.revocations, base, diagnostics);
    let services_named = policy_sections.service_headers.is_some();
    let policy = policy_sections.compile(
        root,
        upstreams,
        own_issuer,
        auth_in_process,
        digest_key,
        diagnostics,
    );
    if let (Some(gateway), Some(policy), false) = (&gateway, &policy, services_named) {
        // The header that services have where the file does not name one.
        let names: Vec<_> = policy.service_headers().names().map(canonical).collect();
        refuse_fixed(&names, gateway, diagnostics);
    }
    if let (Some(gateway), Some(policy)) = (&gateway, &policy) {
        refuse_limits_without_store(gateway, policy, diagnostics);
        refuse_shared_assertion(gateway, policy, root.place, diagnostics);
    }

    let auth = match auth {
        Some(auth) if role == Role::Whole => Some(auth?),
        _ => None,
    };
    Some(Loaded {
        control,
        auth,
        gateway: gateway?,
        policy: policy?,
        redis,
        demo: match demo {
            Some(demo) => Some(demo?),
            None => None,
        },
        reload,
        document: document.clone(),
    })
}

fn compile_reload(node: Option<&Node>, diagnostics: &mut Diagnostics) -> ReloadConfig {
    let watch = node
        .and_then(|node| node.section("reload", diagnostics))
        .and_then(|mut section| {
            let watch = section.required("watch", "write `reload: { watch: false }`", diagnostics);
            section.finish(diagnostics);
            watch?.boolean("reload.watch", diagnostics)
        });
    ReloadConfig {
        watch: watch.unwrap_or(true),
    }
}

/// The Redis of `revocations`, where that names one. What else stands there is the policy's to judge.
fn redis_target(
    revocations: Option<&Node>,
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<RedisTarget> {
    let mut section = revocations?.section("revocations", &mut Diagnostics::default())?;
    let store = section.optional("store")?;
    let named = store.text("store", &mut Diagnostics::default())?;
    if !RedisTarget::is_meant_by(named) {
        return None;
    }
    RedisTarget::compile(store, section.optional("redis"), base, diagnostics)
}

/// The keys of the file that the policy is made of.
struct PolicyNodes<'a> {
    issuers: Option<&'a Node>,
    identity_headers: Option<&'a Node>,
    service_headers: Option<&'a Node>,
    strip: Option<&'a Node>,
    routes: Option<&'a Node>,
    revocations: Option<&'a Node>,
    rate_limits: Option<&'a Node>,
}

impl<'a> PolicyNodes<'a> {
    fn take(file: &mut Section<'a>) -> Self {
        Self {
            issuers: file.optional("issuers"),
            identity_headers: file.optional("identity_headers"),
            service_headers: file.optional("service_headers"),
            strip: file.optional("strip"),
            routes: file.optional("routes"),
            revocations: file.optional("revocations"),
            rate_limits: file.optional("rate_limits"),
        }
    }

    /// A fixed header is set after the identity: one of the same name would take its place.
    fn refuse_shadowed_identity(&self, gateway: &GatewayConfig, diagnostics: &mut Diagnostics) {
        let sections = [
            ("identity_headers", self.identity_headers),
            ("service_headers", self.service_headers),
        ];
        let entries = sections.into_iter().filter_map(|(what, node)| {
            // What is wrong with the sections is the policy's to report.
            node?.entries(what, &mut Diagnostics::default())
        });
        let names: Vec<_> = entries.flatten().map(|entry| canonical(&entry.key)).collect();
        refuse_fixed(&names, gateway, diagnostics);
    }

    fn compile(
        self,
        root: &Node,
        upstreams: Option<&Node>,
        own_issuer: Option<OwnIssuer>,
        auth_in_process: bool,
        digest_key: DigestKey,
        diagnostics: &mut Diagnostics,
    ) -> Option<Policy> {
        // The gateway reports what is wrong with the upstreams; here only their names count.
        let names = upstreams.and_then(|node| node.entries("upstreams", &mut Diagnostics::default()));
        let upstream_names: Vec<_> = names
            .into_iter()
            .flatten()
            .map(|entry| (entry.key.clone(), entry.place))
            .collect();
        let sections = PolicySections {
            issuers: self.issuers,
            identity_headers: self.identity_headers,
            service_headers: self.service_headers,
            strip: self.strip,
            routes: self.routes,
            revocations: self.revocations,
            rate_limits: self.rate_limits,
            upstream_names: &upstream_names,
            auth_in_process,
            own_issuer,
            file_place: root.place,
        };
        Policy::compile(sections, digest_key, diagnostics)
    }
}

fn refuse_fixed(names: &[String], gateway: &GatewayConfig, diagnostics: &mut Diagnostics) {
    for upstream in &gateway.upstreams {
        for fixed in &upstream.headers {
            if names.contains(&canonical(fixed.name.as_str())) {
                let message = format!("the fixed header `{}` is an identity header", fixed.name);
                diagnostics.error(upstream.place, message, "give the fixed header another name");
            }
        }
    }
}

/// One header cannot say two things.
fn refuse_shared_assertion(
    gateway: &GatewayConfig,
    policy: &Policy,
    place: Place,
    diagnostics: &mut Diagnostics,
) {
    let Some(assertion) = &gateway.assertion else {
        return;
    };
    let mut names = policy.identity_header_names();
    if let Some(name) = names.find(|name| assertion.is_taken_for(name.as_str())) {
        let message = format!("the identity header `{name}` is the assertion's");
        diagnostics.error(place, message, "give one of the two another name");
    }
}

/// What gateways count together they count in a store.
fn refuse_limits_without_store(gateway: &GatewayConfig, policy: &Policy, diagnostics: &mut Diagnostics) {
    let mut shared = policy.rate_limits().iter().filter(|limit| limit.shared.is_some());
    if let (Some(limit), None) = (shared.next(), &gateway.rate_limit_store) {
        let message = format!(
            "the rate limit `{}` is shared, and there is no `rate_limit_store`",
            limit.name
        );
        let advice = "write `rate_limit_store: { store: redis://HOST:PORT }`, or remove `shared`";
        diagnostics.error(limit.place, message, advice);
    }
}

fn own_issuer(auth: &AuthConfig, role: Role) -> OwnIssuer {
    OwnIssuer {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        algorithm: match auth.signing_algorithm {
            SigningAlgorithm::Es256 => Algorithm::ES256,
            SigningAlgorithm::EdDsa => Algorithm::EdDSA,
            SigningAlgorithm::Rs256 => Algorithm::RS256,
        },
        key_announce: auth.signing_key_announce,
        in_process: role == Role::Whole,
    }
}

fn control_path(file: &mut Section<'_>, base: &Path, diagnostics: &mut Diagnostics) -> PathBuf {
    let node = file.optional("control");
    let path = node
        .and_then(|node| node.text("control", diagnostics))
        .unwrap_or(DEFAULT_CONTROL_SOCKET);
    base.join(path)
}

/// Revocation digests are keyed afresh in each process, so that nobody can aim for a collision.
fn random_digest_key() -> DigestKey {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key).expect("the system's random source");
    DigestKey(key)
}

/// The client for the service that runs with this configuration file. Only `control` is read: the
/// rest of the file may be broken by an edit while the service runs on.
pub fn control_client(path: &Path) -> Result<ControlClient, Failure> {
    control_socket(path).map(|socket| ControlClient::new(&socket))
}

/// Where the control socket of this configuration is.
pub fn control_socket(path: &Path) -> Result<PathBuf, Failure> {
    let document = read(path)?.map_err(|diagnostics| Failure::No(diagnostics.to_string()))?;
    let mut diagnostics = Diagnostics::default();
    let mut file = document
        .root()
        .section("the configuration", &mut diagnostics)
        .ok_or_else(|| Failure::No(format!("{} is not a configuration", path.display())))?;
    Ok(control_path(&mut file, folder_of(path), &mut diagnostics))
}

/// Explains a request by the file alone, where no service runs.
pub fn explain_from_file(path: &Path, question: &Value) -> Result<Value, Failure> {
    let loaded = load_or_fail(path, Role::Whole)?;
    let request = control::explain::request_of(question).map_err(Failure::Usage)?;
    let explanation = durward_gateway::explain_offline(&loaded.policy, folder_of(path), &request)
        .map_err(Failure::Usage)?;
    let mut answer = serde_json::to_value(explanation).map_err(Failure::failed)?;
    answer["note"] = "no service is running: by the file alone, with nothing taken to be revoked".into();
    Ok(answer)
}
