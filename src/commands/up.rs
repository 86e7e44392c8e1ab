//! `durward up`: auth service, gateway and demo backends in one process.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use durward_auth::{AuthConfig, AuthService, NewUser, Secret};
use durward_contract::Follower;
use durward_gateway::{Gateway, GatewayConfig, GatewayRevocations};
use durward_news::{FollowerTask, RedisTarget};
use durward_upstreams::ImageFolder;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::ConfigFile;
use crate::configuration::{self, Loaded, Role};
use crate::control::{self, server::ControlSocket};
use crate::demo::{self, DemoConfig, DemoUser};
use crate::exit::Failure;
use crate::loopback::first_exposed;
use crate::news::{self, InProcess, Publishing};
use crate::reload::Reloader;
use crate::shutdown::Shutdown;
use crate::upgrade::{Inheritance, Upgrader};
use crate::{banner, running};

/// Roles of the demo users: one of each kind.
const DEMO_USERS: [(&str, &[&str]); 3] = [("alice", &[]), ("bob", &[]), ("root", &["admin"])];

/// Runs everything that the file describes until a signal.
pub async fn run(file: ConfigFile) -> Result<(), Failure> {
    let Loaded {
        control,
        auth,
        gateway,
        policy,
        redis,
        demo,
        reload,
        document,
    } = configuration::load_or_fail(&file.config, Role::Whole)?;
    let auth = auth.ok_or_else(|| {
        Failure::No(format!(
            "{} has no `auth` section: run `durward gateway`",
            file.config.display()
        ))
    })?;
    let mut inheritance = Inheritance::take().map_err(Failure::failed)?;
    let (shutdown, trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let socket = ControlSocket::open(&control, inheritance.control.take())
        .map_err(|error| running::control_failure(&control, &error))?;
    let exposed = exposed_listener(&gateway, &auth, demo.as_ref());

    let policy = Arc::new(policy);
    let revocations = running::revocations(&policy, redis.as_ref())?;
    let registry = Registry::new();
    let auth_listener = demo::listen_on(&inheritance.sockets, auth.listen)?;
    let service = AuthService::start(auth, followers(&revocations, redis.as_ref()), &registry)
        .await
        .map_err(Failure::failed)?;
    let road = Road::open(redis.as_ref(), &revocations, &service, &gateway, &registry)?;
    let gateway = Gateway::on(
        &inheritance.sockets,
        gateway,
        policy,
        Some(service.jwks()),
        revocations,
    )
    .map_err(Failure::failed)?;
    gateway.show_metrics_of(registry.clone());
    let gateway = Arc::new(gateway);

    let reloader = Reloader::new(&file.config, Role::Whole, &gateway, document, reload.watch);
    reloader.start(&shutdown).map_err(Failure::failed)?;
    let router = service
        .control_router()
        .merge(control::explain::router(Arc::clone(&gateway)))
        .merge(control::reload::router(reloader));
    let upgrader = Upgrader::new(
        &inheritance.sockets,
        socket.handle().map_err(Failure::failed)?,
        &registry,
    );
    take_over(&mut inheritance, &service, &gateway).await?;
    // What open requests of the gateway still need ends only after its drain.
    let (drained, stop) = Shutdown::by_hand();
    let doors = Doors::open(socket, router, &service, auth_listener);

    let demo_users = match &demo {
        Some(demo) => {
            demo::start(&inheritance.sockets, demo, &drained).await?;
            demo_users(&service, demo, exposed).await?
        }
        None => Vec::new(),
    };
    let places = banner::Places {
        edge: gateway.listen_urls(),
        forward_auth: gateway.forward_auth_address(),
        admin: gateway.admin_address(),
        auth: service.config().listen,
        control: &control,
        demo: demo.as_ref(),
    };
    banner::print(&file.config, &places, &demo_users);

    let (closing, closing_doors) = (Arc::clone(&gateway), doors.clone());
    let upgrading = upgrader
        .start(move || async move {
            closing.hand_over();
            let _ = trigger.send(true);
            running::closed_in_time(async {
                tokio::join!(closing.doors_closed(), closing_doors.close());
            })
            .await;
        })
        .map_err(Failure::failed)?;
    running::gateway_until(gateway, shutdown).await?;
    let _ = stop.send(true);
    doors.close().await;
    road.close().await;
    service.close().await;
    upgrading.finish().await;
    Ok(())
}

/// Goes on where another process was, if there is one: when all is there that it takes to answer as
/// that would, and with what was committed there last.
async fn take_over(
    inheritance: &mut Inheritance,
    service: &AuthService,
    gateway: &Gateway,
) -> Result<(), Failure> {
    if !inheritance.takes_over() {
        return Ok(());
    }
    gateway.prepare().await.map_err(Failure::Failed)?;
    inheritance.wait_for_go().await.map_err(Failure::failed)?;
    running::catch_up(service).await;
    Ok(())
}

/// The doors at which bans and logins are acknowledged.
#[derive(Clone)]
struct Doors {
    end: Arc<watch::Sender<bool>>,
    ended: Shutdown,
}

impl Doors {
    fn open(socket: ControlSocket, router: Router, service: &AuthService, listener: TcpListener) -> Self {
        let (end, trigger) = Shutdown::by_hand();
        let (ended, running) = Shutdown::by_hand();
        let serving = service.clone();
        tokio::spawn(async move {
            let auth = serving.serve(listener, end.clone().requested());
            let _ = tokio::join!(auth, socket.serve(router, end));
            drop(running);
        });
        Self {
            end: Arc::new(trigger),
            ended,
        }
    }

    /// Takes no more requests, and waits for the end of those that are open.
    async fn close(&self) {
        let _ = self.end.send(true);
        self.ended.clone().requested().await;
    }
}

/// Who hears of the log directly: with Redis the gateway hears from there, as all the others do.
fn followers(revocations: &GatewayRevocations, redis: Option<&RedisTarget>) -> Vec<Arc<dyn Follower>> {
    match revocations {
        GatewayRevocations::Mirror(feed) if redis.is_none() => {
            vec![Arc::clone(feed) as Arc<dyn Follower>]
        }
        // With `mode: lookup` the file says that it does without these news.
        GatewayRevocations::Mirror(_) | GatewayRevocations::None | GatewayRevocations::Lookup(_) => {
            Vec::new()
        }
    }
}

/// The road through Redis, where there is one. The store of lookup mode is the application's own:
/// nothing is written to it.
#[derive(Default)]
struct Road {
    publishing: Option<Publishing>,
    following: Option<Arc<FollowerTask>>,
}

impl Road {
    fn open(
        redis: Option<&RedisTarget>,
        revocations: &GatewayRevocations,
        service: &AuthService,
        config: &GatewayConfig,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let GatewayRevocations::Mirror(feed) = revocations else {
            return Ok(Self::default());
        };
        let Some(redis) = redis else {
            service.follow_with(Arc::new(InProcess::new(feed, config)));
            return Ok(Self::default());
        };
        Ok(Self {
            publishing: Some(news::publish(redis, service, registry)?),
            following: Some(news::follow(redis, feed, config, registry)?),
        })
    }

    async fn close(self) {
        if let Some(following) = self.following {
            following.stop().await;
        }
        if let Some(publishing) = self.publishing {
            publishing.stop().await;
        }
    }
}

fn exposed_listener(
    gateway: &GatewayConfig,
    auth: &AuthConfig,
    demo: Option<&DemoConfig>,
) -> Option<SocketAddr> {
    let listeners = gateway.listen.iter().map(|listener| &listener.address);
    let edge = listeners.chain(&gateway.admin);
    let backends = demo.into_iter().flat_map(DemoConfig::listeners);
    first_exposed(edge.chain([&auth.listen]).chain(backends))
}

/// Makes the demo users on the first start, each with an image of their own. Only where nobody else
/// can reach any listener, and only into a database without users.
async fn demo_users(
    service: &AuthService,
    demo: &DemoConfig,
    exposed: Option<SocketAddr>,
) -> Result<Vec<DemoUser>, Failure> {
    if let Some(address) = exposed {
        tracing::warn!(%address, "no demo users: a listener is not on loopback");
        return Ok(Vec::new());
    }
    if service.has_users().await.map_err(Failure::failed)? {
        return Ok(Vec::new());
    }
    // The passwords are kept before the users are made: a crash in between leaves nobody whose
    // password is lost.
    let users = DEMO_USERS.map(|(username, _)| DemoUser::with_new_password(username));
    demo::keep_passwords(&demo.passwords, &users)
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", demo.passwords.display())))?;
    let images = ImageFolder::open(&demo.folder).map_err(Failure::failed)?;
    for (user, (_, roles)) in users.iter().zip(DEMO_USERS) {
        let new_user = NewUser {
            username: user.username.clone(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            password: Some(Secret::new(&user.password)),
        };
        let added = service.add_user(new_user).await.map_err(Failure::failed)?;
        images
            .put_sample(&added.id, "hello.png")
            .map_err(Failure::failed)?;
    }
    Ok(users.into())
}
