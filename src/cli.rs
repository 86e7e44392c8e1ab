//! The command line: what can be typed, and nothing of what it does.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Durward: a reverse-proxy authentication gateway where a ban is the next refused request.
#[derive(Debug, Parser)]
#[command(name = "durward", version, about, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run auth service, gateway and demo backends in one process
    #[command(after_help = "Example: durward up --config config.yaml")]
    Up(ConfigFile),
    /// Run the gateway alone: for foreign issuers, or beside auth services elsewhere
    #[command(after_help = "Example: durward gateway --config edge.yaml")]
    Gateway(ConfigFile),
    /// Run the auth service alone, or bring its database up to date
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  durward auth --config auth.yaml\n  durward auth migrate --config auth.yaml"
    )]
    Auth(AuthArguments),
    /// Run one demo backend alone
    #[command(subcommand)]
    Demo(DemoCommand),
    /// Check a configuration file: every error and warning at once
    #[command(
        after_help = "Example: durward check --config config.yaml\nExit code 1 means that the file has errors."
    )]
    Check(CheckArguments),
    /// Have the running gateway take over its configuration file again
    #[command(
        after_help = "Examples:\n  durward reload --config config.yaml\n  durward reload --check --json\n\
                      Exit code 1 means that the file is refused and nothing changed. SIGHUP does the same, and so \
                      does a change of the file, unless it says `reload: { watch: false }`."
    )]
    Reload(ReloadArguments),
    /// Say how a request would be decided, step by step, and why
    #[command(
        after_help = "Examples:\n  echo \"$TOKEN\" | durward explain GET http://127.0.0.1:8080/api/me --token -\n  \
                      durward explain GET /api/report --api-key - < key.txt\n  \
                      durward explain PUT /images/u_1/a.png --claims '{\"sub\":\"u_1\"}' --at 2030-01-01T00:00:00Z\n\
                      Exit code 0 means permitted, 1 refused. With a running service, its keys and revocations \
                      answer; without one, the file alone does."
    )]
    Explain(ExplainArguments),
    /// Add and list users, change their roles
    #[command(subcommand)]
    User(UserCommand),
    /// Ban a user: the next request is refused, open streams are cut
    #[command(
        after_help = "Examples:\n  durward ban mallory --reason 'card fraud' --config config.yaml\n  \
                      durward ban mallory --wait=2s\n\
                      Exit code 1 with --wait: some gateway did not answer in time; the ban is durable all the same."
    )]
    Ban(BanArguments),
    /// Lift a ban; tokens from before it stay refused
    #[command(after_help = "Example: durward unban mallory --config config.yaml")]
    Unban(UserArguments),
    /// List a user's sessions, or end them
    #[command(
        after_help = "Examples:\n  durward sessions alice\n  durward sessions alice --end s_1\n  durward sessions alice --end-all"
    )]
    Sessions(SessionsArguments),
    /// API keys of services: make, list, revoke
    #[command(subcommand)]
    Apikey(ApikeyCommand),
    /// Revoke sessions, a token, a signing key, or everyone
    #[command(
        after_help = "Examples:\n  durward revoke --ip 203.0.113.0/24 --user-agent 'curl*' --dry-run\n  \
                      durward revoke --ip 203.0.113.0/24 --issued-before 2030-01-31T12:00:00Z --reason 'stolen laptops'\n  \
                      durward revoke --ip 203.0.113.0/24 --verify\n  \
                      durward revoke --everyone --yes --reason 'database leaked'\n\
                      Kinds of filters are combined with AND, values of one kind with OR. On a terminal it lists what it \
                      would hit and asks; elsewhere it wants --yes. Exit code 1 means that nothing was revoked, or, \
                      with --verify, that something is left, or, with --wait, that some gateway \
                       did not answer in time; the revocation is durable all the same."
    )]
    Revoke(RevokeArguments),
    /// Print who did what, when and why
    #[command(
        after_help = "Example: durward audit --since 2030-01-31T12:00:00Z --action sessions_revoked --json"
    )]
    Audit(AuditArguments),
    /// Signing keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look into a token
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, default_value = "config.yaml", value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `auth`.
#[derive(Debug, Args)]
pub struct AuthArguments {
    #[command(flatten)]
    pub file: ConfigFile,
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<AuthCommand>,
}

/// `auth …`
#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Bring the database up to date, say what that took, and end
    #[command(
        after_help = "Examples:\n  durward auth migrate --config auth.yaml\n  durward auth migrate --check\n\
                      With --check, exit code 0 means up to date, 1 that something is pending. A start of the \
                      service migrates as well; of several that start together, one does it."
    )]
    Migrate {
        #[command(flatten)]
        file: ConfigFile,
        /// Change nothing; say what is pending
        #[arg(long)]
        check: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// How a command that asks the running service speaks.
#[derive(Debug, Args)]
pub struct Client {
    /// The configuration file; its `control` socket is where the running service listens
    #[arg(long, default_value = "config.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArguments {
    /// Say what would change, and change nothing
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub client: Client,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The configuration file
    #[arg(long, default_value = "config.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The method, such as GET
    pub method: String,
    /// An absolute URL, or a path
    pub url: String,
    /// The bearer token; `-` reads it from standard input
    #[arg(long, conflicts_with = "claims")]
    pub token: Option<String>,
    /// The API key: `-`, which reads it from standard input
    #[arg(long, value_name = "-", conflicts_with_all = ["token", "claims"])]
    pub api_key: Option<String>,
    /// Claims to assume as proved, as a JSON object; times that are missing are filled in
    #[arg(long, value_name = "JSON")]
    pub claims: Option<String>,
    /// A request header; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Decide as of this time: RFC 3339 in UTC, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    #[command(flatten)]
    pub client: Client,
}

/// `user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password is made and shown once, or read from standard input
    #[command(
        after_help = "Examples:\n  durward user add alice\n  printf '%s' \"$PASSWORD\" | durward user add bob --role admin --password-stdin"
    )]
    Add {
        /// The user name
        username: String,
        /// A role; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Read the password from standard input instead of making one
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        client: Client,
    },
    /// List users
    #[command(after_help = "Example: durward user list --json")]
    List(Client),
    /// Give and take roles; taking one refuses older tokens at once
    #[command(after_help = "Example: durward user role alice --add admin")]
    Role {
        /// The user name
        username: String,
        /// A role to give; may be repeated
        #[arg(long, value_name = "ROLE", required_unless_present = "remove")]
        add: Vec<String>,
        /// A role to take; may be repeated
        #[arg(long, value_name = "ROLE")]
        remove: Vec<String>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: Client,
    },
}

/// A user by name, or by the id that the access log shows.
#[derive(Debug, Args)]
pub struct UserArguments {
    /// The user name
    pub username: String,
    #[command(flatten)]
    pub client: Client,
}

/// Whether to wait until the gateways have heard of it.
#[derive(Debug, Args)]
pub struct Wait {
    /// Wait until every gateway refuses, for at most so long (`--wait=500ms`), and say how many do
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5s")]
    pub wait: Option<String>,
}

/// Arguments of `ban`.
#[derive(Debug, Args)]
pub struct BanArguments {
    /// The user name
    pub username: String,
    /// Why; kept in the audit log
    #[arg(long)]
    pub reason: Option<String>,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub client: Client,
}

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct SessionsArguments {
    /// The user name
    pub username: String,
    /// End this session
    #[arg(long, value_name = "SESSION", conflicts_with = "end_all")]
    pub end: Option<String>,
    /// End all of the user's sessions
    #[arg(long)]
    pub end_all: bool,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub client: Client,
}

/// `apikey …`
#[derive(Debug, Subcommand)]
pub enum ApikeyCommand {
    /// Make a key for a service; it is shown once
    #[command(
        after_help = "Examples:\n  durward apikey create billing --scope notes:read --scope notes:write\n  \
                      durward apikey create cron --expires never\n  \
                      durward apikey create billing --certificate dns:billing.internal"
    )]
    Create {
        /// The name of the service: letters, digits, dashes and dots
        service: String,
        /// A scope; may be repeated
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it holds: a duration such as 90d, or `never`
        #[arg(long, default_value = "90d", value_name = "DURATION")]
        expires: String,
        /// A client certificate that is granted instead of a key: `dns:HOST` or `uri:URI` of its
        /// subjectAltName, or `sha256:FINGERPRINT`
        #[arg(long, value_name = "NAME")]
        certificate: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// List the keys, ended ones too
    #[command(after_help = "Example: durward apikey list --json")]
    List(Client),
    /// Revoke a key: the next request is refused, open streams are cut
    #[command(after_help = "Example: durward apikey revoke 0123456789abcdef --wait")]
    Revoke {
        /// The key's id: what stands between `dwk_` and the second `_`
        id: String,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: Client,
    },
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArguments {
    #[command(flatten)]
    pub filter: FilterArguments,
    /// End this session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Refuse this access token; its session goes on
    #[arg(long, value_name = "JTI")]
    pub token: Option<String>,
    /// Refuse all tokens that this key signed, for ever; sessions go on
    #[arg(long, value_name = "KID")]
    pub signing_key: Option<String>,
    /// End every session and refuse every token: all log in again, admins too
    #[arg(long)]
    pub everyone: bool,
    /// Why; kept in the audit trail
    #[arg(long)]
    pub reason: Option<String>,
    /// List what would be hit, and revoke nothing
    #[arg(long, conflicts_with_all = ["yes", "expect", "wait"])]
    pub dry_run: bool,
    /// Say whether any session or valid refresh token is left; exit code 1 where there is
    #[arg(long, conflicts_with_all = ["yes", "expect", "dry_run", "wait"])]
    pub verify: bool,
    /// Revoke only if the selection is still the one that a dry run named
    #[arg(long, value_name = "SELECTION")]
    pub expect: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub client: Client,
}

/// Which sessions are meant.
#[derive(Debug, Args)]
#[group(id = "filters", multiple = true)]
pub struct FilterArguments {
    /// A network or an address of clients; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub ip: Vec<String>,
    /// The whole user agent, with * and ?, in any case of letters; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub user_agent: Vec<String>,
    /// The session's newest tokens were issued before this time
    #[arg(long, value_name = "TIME")]
    pub issued_before: Option<String>,
    /// The session's newest tokens were issued at this time or later
    #[arg(long, value_name = "TIME")]
    pub issued_after: Option<String>,
    /// The login was before this time, however often the session was refreshed since
    #[arg(long, value_name = "TIME")]
    pub created_before: Option<String>,
    /// The login was at this time or later
    #[arg(long, value_name = "TIME")]
    pub created_after: Option<String>,
    /// A role that the user has now; may be repeated
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// A user by name; may be repeated
    #[arg(long, value_name = "NAME")]
    pub user: Vec<String>,
    /// A client; may be repeated
    #[arg(long = "client", value_name = "ID")]
    pub client_ids: Vec<String>,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// From this time on
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only this kind of action, such as banned or sessions_revoked
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    #[command(flatten)]
    pub client: Client,
}

/// `keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the signing keys
    #[command(after_help = "Example: durward keys list")]
    List(Client),
    /// Announce a new key, which signs once everybody knows it; the old one stays published until its
    /// last token has expired
    #[command(
        after_help = "Examples:\n  durward keys rotate\n  durward keys rotate --now\n  \
                      durward keys rotate --revoke --reason 'backup stolen' --wait\n\
                      The new key is published at once and signs after auth.signing_key_announce. With --now it \
                      signs at once, or the one does that is announced: gateways elsewhere refuse its tokens until \
                      they have read the keys again. With --revoke the old key's tokens are refused, too."
    )]
    Rotate(RotateArguments),
}

/// Arguments of `keys rotate`.
#[derive(Debug, Args)]
pub struct RotateArguments {
    /// Do not announce it first
    #[arg(long)]
    pub now: bool,
    /// Refuse everything that the old key signed, and sign with a new one at once
    #[arg(long, conflicts_with = "now")]
    pub revoke: bool,
    /// Why it is revoked; kept in the audit log
    #[arg(long, requires = "revoke")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub client: Client,
}

/// `token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Decode a token without judging it, and say what stands in it
    #[command(after_help = "Example: durward token inspect - < token.txt")]
    Inspect {
        /// The token; `-` reads it from standard input
        token: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `demo …`
#[derive(Debug, Subcommand)]
pub enum DemoCommand {
    /// The API server
    #[command(after_help = "Example: durward demo api --listen 127.0.0.1:8101")]
    Api {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8101")]
        listen: SocketAddr,
    },
    /// The image server
    #[command(after_help = "Example: durward demo images --listen 127.0.0.1:8102 --folder data/images")]
    Images {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8102")]
        listen: SocketAddr,
        /// The folder of images
        #[arg(long, default_value = "data/images")]
        folder: PathBuf,
    },
}
