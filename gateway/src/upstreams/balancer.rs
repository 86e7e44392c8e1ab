//! Whose turn it is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora_ketama::{Bucket, Continuum};

use crate::upstream_config::{Balance, ServerConfig};

/// Chooses among the servers of an upstream.
pub(super) enum Balancer {
    RoundRobin(Rota),
    Least { weights: Vec<u32>, rota: Rota },
    UserHash(Box<Ring>),
}

/// Servers by their index, each as often as its weight says, spread evenly.
pub(super) struct Rota {
    order: Vec<u16>,
    next: AtomicUsize,
}

/// The consistent hashing of nginx's `hash ... consistent` (ketama): a server that comes or goes moves
/// its own share of the users and no other.
pub(super) struct Ring {
    continuum: Continuum,
    indices: HashMap<SocketAddr, usize>,
    /// How many points it has at most.
    points: usize,
}

/// A request's place in the order.
pub(super) enum Turn<'b> {
    RoundRobin(&'b [u16], usize),
    Least(&'b [u32], &'b [u16], usize),
    UserHash(&'b Ring, Vec<u8>),
}

impl Balancer {
    pub(super) fn new(balance: Balance, servers: &[ServerConfig]) -> Self {
        let weights = reduced(servers);
        match balance {
            Balance::RoundRobin => Self::RoundRobin(Rota::new(&weights)),
            Balance::LeastConnections => Self::Least {
                rota: Rota::new(&weights),
                weights,
            },
            Balance::UserHash => Self::UserHash(Box::new(Ring::new(servers, &weights))),
        }
    }

    /// Whether it asks for the open requests of servers.
    pub(super) fn counts_open(&self) -> bool {
        matches!(self, Self::Least { .. })
    }

    /// The turn of the next request; `user` is asked for where it decides.
    pub(super) fn turn(&self, user: impl FnOnce() -> Vec<u8>) -> Turn<'_> {
        match self {
            Self::RoundRobin(rota) => Turn::RoundRobin(&rota.order, rota.turn()),
            Self::Least { weights, rota } => Turn::Least(weights, &rota.order, rota.turn()),
            Self::UserHash(ring) => Turn::UserHash(ring, user()),
        }
    }
}

impl Turn<'_> {
    /// The first in its order that `suits`. `open` tells how many requests a server has open.
    pub(super) fn first(
        &self,
        open: impl Fn(usize) -> usize,
        mut suits: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(order, start) => from(order, *start).find(|index| suits(*index)),
            Self::Least(weights, order, start) => {
                let load = |index: usize| (open(index), u64::from(weights[index]));
                let suitable = from(order, *start).filter(|index| suits(*index));
                // Of equals the first in turn, which is what this keeps.
                suitable
                    .map(|index| (index, load(index)))
                    .reduce(|best, other| {
                        let ((best_open, best_weight), (open, weight)) = (best.1, other.1);
                        let less = open as u64 * best_weight < best_open as u64 * weight;
                        if less { other } else { best }
                    })
                    .map(|(index, _)| index)
            }
            Self::UserHash(ring, user) => ring
                .continuum
                .node_iter(user)
                .take(ring.points)
                .filter_map(|address| ring.indices.get(address))
                .copied()
                .find(|index| suits(*index)),
        }
    }
}

fn from(order: &[u16], start: usize) -> impl Iterator<Item = usize> {
    let start = start % order.len().max(1);
    let (before, after) = order.split_at(start);
    after.iter().chain(before).map(|index| usize::from(*index))
}

impl Rota {
    /// Each round gives the turn to whoever has waited most for its weight, as nginx does.
    fn new(weights: &[u32]) -> Self {
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        let mut credit = vec![0_i64; weights.len()];
        let rounds = usize::try_from(total).unwrap_or_default();
        let mut order = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let mut best = 0;
            for (index, weight) in weights.iter().enumerate() {
                credit[index] += i64::from(*weight);
                if credit[index] > credit[best] {
                    best = index;
                }
            }
            credit[best] -= total;
            order.push(u16::try_from(best).unwrap_or_default());
        }
        Self {
            order,
            next: AtomicUsize::new(0),
        }
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Ring {
    /// Points that [`pingora_ketama`] gives a server for each unit of weight.
    const POINTS: usize = 160;

    fn new(servers: &[ServerConfig], weights: &[u32]) -> Self {
        let buckets: Vec<_> = servers
            .iter()
            .zip(weights)
            .map(|(server, weight)| Bucket::new(server.address, (*weight).max(1)))
            .collect();
        let points = weights.iter().map(|weight| *weight as usize).sum::<usize>() * Self::POINTS;
        Self {
            continuum: Continuum::new(&buckets),
            indices: servers
                .iter()
                .enumerate()
                .map(|(index, server)| (server.address, index))
                .collect(),
            points,
        }
    }
}

/// The weights without the factor that they share.
fn reduced(servers: &[ServerConfig]) -> Vec<u32> {
    let shared = servers
        .iter()
        .fold(0, |shared, server| gcd(server.weight, shared));
    servers
        .iter()
        .map(|server| server.weight / shared.max(1))
        .collect()
}

fn gcd(left: u32, right: u32) -> u32 {
    if right == 0 {
        left
    } else {
        gcd(right, left % right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> Vec<ServerConfig> {
        let server = |(index, weight): (usize, &u32)| ServerConfig {
            address: SocketAddr::from(([127, 0, 0, 1], u16::try_from(index + 1).unwrap())),
            weight: *weight,
        };
        weights.iter().enumerate().map(server).collect()
    }

    fn pick(balancer: &Balancer, user: &str, open: &[usize], fit: &[bool]) -> Option<usize> {
        let turn = balancer.turn(|| user.into());
        turn.first(|index| open[index], |index| fit[index])
    }

    #[test]
    fn turns_are_by_weight_and_spread() {
        let balancer = Balancer::new(Balance::RoundRobin, &servers(&[10, 2, 2]));
        let order: Vec<_> = (0..7)
            .map(|_| pick(&balancer, "", &[0; 3], &[true; 3]).unwrap())
            .collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
        for _ in 0..7 {
            assert_ne!(pick(&balancer, "", &[0; 3], &[false, true, true]), Some(0));
        }
        assert_eq!(pick(&balancer, "", &[0; 3], &[false; 3]), None);
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_next() {
        let balancer = Balancer::new(Balance::LeastConnections, &servers(&[1, 3]));
        assert_eq!(pick(&balancer, "", &[1, 2], &[true; 2]), Some(1));
        assert_eq!(pick(&balancer, "", &[1, 4], &[true; 2]), Some(0));
        assert_eq!(pick(&balancer, "", &[0, 9], &[false, true]), Some(1));
    }

    #[test]
    fn a_user_keeps_the_server_and_others_keep_theirs_when_one_goes() {
        let balancer = Balancer::new(Balance::UserHash, &servers(&[1, 1, 1, 1]));
        let of = |user: usize, fit: &[bool; 4]| pick(&balancer, &format!("u{user}"), &[0; 4], fit).unwrap();
        let all = [true; 4];
        let without_2 = [true, true, false, true];
        let mut counts = [0; 4];
        for user in 0..1000 {
            let server = of(user, &all);
            counts[server] += 1;
            assert_eq!(of(user, &all), server);
            let then = of(user, &without_2);
            assert!(then != 2 && (server == 2 || then == server));
        }
        assert!(
            counts.iter().all(|count| (100..500).contains(count)),
            "{counts:?}"
        );
    }
}
