//! Each issuer's current keys, and how they stay current.
//!
//! Nothing on a request's way waits for them. A set is replaced as a whole when a new one has been
//! read and is good; until then, and whenever reading fails, the last good one stays, for as long as the
//! configuration says (`jwks_max_stale`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use durward_policy::{Issuer, IssuerId, KeySet, KeySource, Keys, Policy};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::jwks_fetch::JwksClient;
use crate::secret::{read_bounded, read_secret, resolve};

/// How often a JWKS file's time of change is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// How often keys are read again after the news that one of them was revoked: what answers may be a
/// replica that has not heard of it yet.
const READS_AFTER_NEWS: u32 = 2;
const AFTER_NEWS_INTERVAL: Duration = Duration::from_millis(1500);
/// A refresh comes early by up to this part of its interval, so that gateways spread.
const JITTER_PARTS: u32 = 10;

/// The keys of every issuer of one policy.
pub(crate) struct IssuerKeys {
    slots: Vec<Arc<Slot>>,
    /// The auth service in this process, and what it last published.
    own: Mutex<Option<watch::Receiver<Arc<Vec<u8>>>>>,
    base: PathBuf,
    client: JwksClient,
}

/// The keys of one issuer. An issuer of which the file says the same keeps its slot from one
/// generation to the next.
pub(crate) struct Slot {
    issuer: Issuer,
    keys: ArcSwapOption<KeySet>,
    /// Of the current set; 0 where there is none.
    generation: AtomicU64,
    /// Somebody names a key that is not known.
    wanted: Notify,
    /// A key was revoked.
    outdated: Notify,
    /// Other keys, or none, have taken the place of those that there were.
    replaced: Notify,
    status: Mutex<Status>,
}

/// How reading an issuer's keys went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) read_at: Option<Instant>,
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    changed_at: Option<SystemTime>,
    /// Of what was read.
    digest: Option<[u8; 32]>,
}

impl IssuerKeys {
    /// Reads what is read at start: PEM files, secrets, JWKS files. The error names the issuer and
    /// the place.
    pub(crate) fn new(policy: &Policy, base: &Path) -> Result<Self, String> {
        let keys = Self {
            slots: policy
                .issuers()
                .iter()
                .map(|issuer| Arc::new(Slot::new(issuer)))
                .collect(),
            own: Mutex::default(),
            base: base.to_owned(),
            client: JwksClient::new(),
        };
        keys.read_files(&keys.slots)?;
        Ok(keys)
    }

    /// The keys for another policy. An issuer of which it says the same keeps the keys that were
    /// fetched for it, and whoever refreshes them; files and secrets are read again. The errors name
    /// the issuers and the places.
    pub(crate) fn successor(before: &Self, policy: &Policy, base: &Path) -> Result<Self, Vec<String>> {
        let slot = |issuer: &Issuer| {
            let known = before
                .slots
                .iter()
                .find(|slot| slot.issuer.name() == issuer.name());
            match known {
                Some(slot) if slot.is_fetched_for(issuer) => Arc::clone(slot),
                Some(slot) => Arc::new(Slot::counted(issuer, slot)),
                None => Arc::new(Slot::new(issuer)),
            }
        };
        let keys = Self {
            slots: policy.issuers().iter().map(slot).collect(),
            own: Mutex::default(),
            base: base.to_owned(),
            client: JwksClient::new(),
        };
        let errors: Vec<_> = keys
            .slots
            .iter()
            .filter_map(|slot| keys.read_files(std::slice::from_ref(slot)).err())
            .collect();
        match errors.is_empty() {
            true => Ok(keys),
            false => Err(errors),
        }
    }

    /// Fetches the keys of those issuers that have none yet, all within `timeout`; not of those that
    /// are as they were `before`, which others fetch.
    pub(crate) async fn fetch_missing(
        &self,
        timeout: Duration,
        before: Option<&Self>,
    ) -> Result<(), Vec<String>> {
        let is_new = |slot: &&Arc<Slot>| {
            let mut known = before.iter().flat_map(|before| &before.slots);
            !known.any(|known| Arc::ptr_eq(known, slot))
        };
        let missing = self.slots.iter().filter(|slot| slot.keys.load().is_none());
        let missing = missing.filter(is_new);
        let fetches = missing.filter_map(|slot| match &slot.issuer.keys {
            KeySource::JwksUrl { url, .. } => Some(async move {
                let fetched = tokio::time::timeout(timeout, self.client.fetch(url)).await;
                let bytes = fetched.unwrap_or_else(|_| Err("no answer in time".into()));
                let read = bytes.and_then(|bytes| slot.replace(&bytes));
                read.map_err(|error| format!("the keys of issuer {}: {error}", slot.issuer.name()))
            }),
            _ => None,
        });
        let results = futures_util::future::join_all(fetches).await;
        let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// The issuers of both whose keys were read anew and are others now.
    pub(crate) fn changed_since(&self, before: &Self) -> Vec<String> {
        let changed = |slot: &&Arc<Slot>| {
            let mut known = before.slots.iter();
            known.any(|old| {
                old.issuer.name() == slot.issuer.name()
                    && !Arc::ptr_eq(old, slot)
                    && old.status.lock().digest != slot.status.lock().digest
            })
        };
        let named = |slot: &Arc<Slot>| format!("the keys of issuer {}", slot.issuer.name());
        self.slots.iter().filter(changed).map(named).collect()
    }

    fn read_files(&self, slots: &[Arc<Slot>]) -> Result<(), String> {
        for slot in slots {
            let bytes = match &slot.issuer.keys {
                KeySource::Own | KeySource::JwksUrl { .. } => continue,
                KeySource::JwksFile(path) => self.read_file(slot, path),
                KeySource::Pem { path, .. } => read_bounded(&resolve(&self.base, path)),
                KeySource::Secret { secret, .. } => read_secret(secret, &self.base),
            };
            let read = bytes.and_then(|bytes| slot.replace(&bytes));
            read.map_err(|error| format!("the keys of issuer {}: {error}", slot.issuer.name()))?;
        }
        Ok(())
    }

    /// Takes over what the auth service in this process publishes, now and whenever it is asked to.
    pub(crate) fn follow_own(&self, own: watch::Receiver<Arc<Vec<u8>>>) {
        self.set_own(&own.borrow());
        *self.own.lock() = Some(own);
    }

    /// Takes over what the auth service in this process has published since; whether there is one. A
    /// token that it signs a moment after a change of keys is then proved with the new ones.
    pub(crate) fn catch_up_with_own(&self) -> bool {
        // The lock is held until the keys are set: an older set never follows a newer one.
        let mut own = self.own.lock();
        let Some(own) = own.as_mut() else { return false };
        if own.has_changed().unwrap_or(false) {
            // Borrowed meanwhile: nothing newer is published, and perhaps set by another generation,
            // before this is.
            let jwks = own.borrow_and_update();
            self.set_own(&jwks);
        }
        true
    }

    /// Takes over the JWKS of the auth service in this process. An empty one is none yet.
    pub(crate) fn set_own(&self, jwks: &[u8]) {
        for slot in self
            .slots
            .iter()
            .filter(|slot| matches!(slot.issuer.keys, KeySource::Own))
        {
            if !jwks.is_empty() {
                slot.take(Ok(jwks.to_vec()));
            }
        }
    }

    /// Whether a set of keys is the current one.
    pub(crate) fn is_current(&self, issuer: IssuerId, generation: u64, ordering: Ordering) -> bool {
        self.slots
            .get(issuer.index())
            .is_some_and(|slot| slot.generation.load(ordering) == generation)
    }

    /// A token names a key that its issuer is not known to have. However often this is called, the
    /// keys are read at most once in a cooldown.
    pub(crate) fn ask_for_refresh(&self, issuer: IssuerId) {
        if let Some(slot) = self.slots.get(issuer.index()) {
            slot.wanted.notify_one();
        }
    }

    /// The auth service has revoked a key of its own, and signs with another: its keys are read now,
    /// whatever the cooldown, which is there for what strangers can ask for.
    pub(crate) fn read_own_again(&self) {
        for slot in self.slots.iter().filter(|slot| slot.issuer.own) {
            slot.outdated.notify_one();
        }
    }

    /// The issuers that have no keys yet.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &str> {
        self.slots
            .iter()
            .filter(|slot| slot.keys.load().is_none())
            .map(|slot| slot.issuer.name())
    }

    /// How reading went, by issuer.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (&str, Status)> {
        self.slots
            .iter()
            .map(|slot| (slot.issuer.name(), slot.status.lock().clone()))
    }

    /// The issuers' slots: whoever keeps them current does so until no generation has them.
    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Keeps the keys of all issuers current, for ever.
    #[cfg(test)]
    pub(crate) async fn keep_current(&self) {
        let tasks = self.slots.iter().map(|slot| self.keep_slot_current(slot));
        futures_util::future::join_all(tasks).await;
    }

    /// Keeps the keys of one issuer current, for ever.
    pub(crate) async fn keep_slot_current(&self, slot: &Slot) {
        match &slot.issuer.keys {
            KeySource::Own | KeySource::Pem { .. } | KeySource::Secret { .. } => {}
            KeySource::JwksFile(path) => self.follow_file(slot, path).await,
            KeySource::JwksUrl {
                url,
                refresh,
                cooldown,
                max_stale,
            } => {
                self.follow_url(slot, url, *refresh, *cooldown, *max_stale).await;
            }
        }
    }

    async fn follow_url(
        &self,
        slot: &Slot,
        url: &str,
        refresh: Duration,
        cooldown: Duration,
        max_stale: Duration,
    ) {
        let mut after_news = 0;
        loop {
            let good = slot.take(self.client.fetch(url).await);
            if !good {
                slot.forget_after(max_stale);
            }
            // What was asked for while the keys were being read waits for the next cooldown too.
            let pause = match after_news {
                0 => cooldown.min(refresh),
                _ => cooldown.min(AFTER_NEWS_INTERVAL),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = slot.outdated.notified() => {
                    after_news = READS_AFTER_NEWS;
                    continue;
                }
            }
            if after_news > 0 {
                after_news -= 1;
                continue;
            }
            // Where they could not be read the next try is one cooldown away: new ones may be announced.
            let rest = match good {
                true => early(refresh).saturating_sub(cooldown),
                false => Duration::ZERO,
            };
            tokio::select! {
                () = slot.wanted.notified() => {}
                () = tokio::time::sleep(rest) => {}
                () = slot.outdated.notified() => after_news = READS_AFTER_NEWS,
            }
        }
    }

    async fn follow_file(&self, slot: &Slot, path: &Path) {
        let path = resolve(&self.base, path);
        loop {
            tokio::time::sleep(FILE_INTERVAL).await;
            let changed_at = changed_at(&path);
            if changed_at.is_some() && changed_at != slot.status.lock().changed_at {
                slot.take(self.read_file(slot, &path));
            }
        }
    }

    fn read_file(&self, slot: &Slot, path: &Path) -> Result<Vec<u8>, String> {
        let path = resolve(&self.base, path);
        slot.status.lock().changed_at = changed_at(&path);
        read_bounded(&path)
    }
}

impl Keys for IssuerKeys {
    fn key_set(&self, issuer: IssuerId) -> Option<Arc<KeySet>> {
        self.slots.get(issuer.index())?.keys.load_full()
    }
}

impl Slot {
    fn new(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.clone(),
            keys: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            wanted: Notify::new(),
            outdated: Notify::new(),
            replaced: Notify::new(),
            status: Mutex::default(),
        }
    }

    /// The slot of an issuer that has changed: the counts go on.
    fn counted(issuer: &Issuer, before: &Self) -> Self {
        let slot = Self::new(issuer);
        let counted = before.status.lock().clone();
        *slot.status.lock() = Status {
            successes: counted.successes,
            failures: counted.failures,
            ..Status::default()
        };
        slot
    }

    /// Whether its keys are handed over or fetched, and for an issuer of which the same is said. Its
    /// place among the issuers and in the file do not matter: keys do not speak of it.
    fn is_fetched_for(&self, issuer: &Issuer) -> bool {
        let fetched = matches!(issuer.keys, KeySource::Own | KeySource::JwksUrl { .. });
        let here = Issuer {
            id: issuer.id,
            place: issuer.place,
            ..self.issuer.clone()
        };
        fetched && here == *issuer
    }

    /// Takes what was read, if it is good, and remembers how it went.
    fn take(&self, bytes: Result<Vec<u8>, String>) -> bool {
        let result = bytes.and_then(|bytes| self.replace(&bytes));
        let issuer = self.issuer.name();
        if let Err(error) = &result {
            self.status.lock().failures += 1;
            tracing::warn!(issuer, %error, "the keys cannot be read; the last good ones stay");
        }
        result.is_ok()
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), String> {
        let mut status = self.status.lock();
        let generation = next_generation();
        let keys = KeySet::read(&self.issuer, bytes, generation).map_err(|error| error.to_string())?;
        let issuer = self.issuer.name();
        for reason in keys.ignored() {
            tracing::warn!(issuer, reason, "a key is ignored");
        }
        tracing::debug!(issuer, keys = keys.len(), "keys read");
        self.keys.store(Some(Arc::new(keys)));
        self.generation.store(generation, Ordering::Release);
        status.read_at = Some(Instant::now());
        let before = status.digest;
        status.digest = digest(&SHA256, bytes).as_ref().try_into().ok();
        status.successes += 1;
        if before.is_some() && before != status.digest {
            self.replaced.notify_one();
        }
        Ok(())
    }

    /// Waits until other keys, or none, have taken the place of those that there were.
    pub(crate) async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Has no keys any more, where none could be read for as long as this.
    fn forget_after(&self, max_stale: Duration) {
        let mut status = self.status.lock();
        let is_too_old = status
            .read_at
            .is_some_and(|read_at| read_at.elapsed() > max_stale);
        if !is_too_old || self.keys.load().is_none() {
            return;
        }
        tracing::error!(
            issuer = self.issuer.name(),
            ?max_stale,
            "no keys could be read for too long: the last good ones are given up"
        );
        self.keys.store(None);
        self.generation.store(0, Ordering::Release);
        status.digest = None;
        self.replaced.notify_one();
    }
}

/// Generations are unique in the process, and never 0.
fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
}

/// An interval, shortened by a random part of it.
fn early(interval: Duration) -> Duration {
    let parts = 1 << 16;
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) % parts;
    let part = interval / JITTER_PARTS;
    interval.saturating_sub(part.mul_f64(random as f64 / parts as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TinyServer, foreign_policy, signing_key, wait_until};

    fn json(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Keys at a URL, with a cooldown that the configuration would not take.
    fn at_url(address: std::net::SocketAddr, cooldown: Duration) -> Arc<IssuerKeys> {
        let policy = foreign_policy(&format!("jwks: 'http://{address}/'"));
        let mut keys = IssuerKeys::new(&policy, Path::new(".")).unwrap();
        Arc::get_mut(&mut keys.slots[0]).unwrap().issuer.keys = KeySource::JwksUrl {
            url: format!("http://{address}/"),
            refresh: Duration::from_secs(3600),
            cooldown,
            max_stale: Duration::from_secs(3600),
        };
        Arc::new(keys)
    }

    fn first(keys: &IssuerKeys) -> &Slot {
        &keys.slots[0]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_unknown_keys_cause_one_fetch_in_a_cooldown() {
        let jwks = String::from_utf8(signing_key("k1").jwks()).unwrap();
        let server = TinyServer::start(move |_| json(&jwks));
        let keys = at_url(server.address(), Duration::from_millis(300));
        let following = Arc::clone(&keys);
        let task = tokio::spawn(async move { following.keep_current().await });
        wait_until(|| keys.missing().next().is_none()).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(800) {
            keys.ask_for_refresh(first(&keys).issuer.id);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let fetches = server.requests().len();
        assert!((2..=4).contains(&fetches), "{fetches} fetches");
        task.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_revoked_key_has_the_own_keys_read_whatever_the_cooldown() {
        let (one, two) = (signing_key("k1").jwks(), signing_key("k2").jwks());
        let (one, two) = (String::from_utf8(one).unwrap(), String::from_utf8(two).unwrap());
        // The first that answers after the news has not heard of it yet.
        let server = TinyServer::start(move |count| match count {
            0 | 1 => json(&one),
            _ => json(&two),
        });
        let mut keys = at_url(server.address(), Duration::from_secs(3600));
        let slot = &mut Arc::get_mut(&mut keys).unwrap().slots[0];
        Arc::get_mut(slot).unwrap().issuer.own = true;
        let following = Arc::clone(&keys);
        let task = tokio::spawn(async move { following.keep_current().await });
        wait_until(|| keys.missing().next().is_none()).await;
        let id = first(&keys).issuer.id;
        let generation = keys.key_set(id).unwrap().generation();
        keys.ask_for_refresh(id);
        keys.read_own_again();
        let reads = |count| first(&keys).status.lock().successes >= count;
        wait_until(|| reads(2 + u64::from(READS_AFTER_NEWS))).await;
        assert!(keys.key_set(id).unwrap().generation() > generation);
        assert_eq!(server.requests().len(), 2 + READS_AFTER_NEWS as usize);
        task.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bad_answers_keep_the_last_good_keys_and_good_ones_replace_them() {
        let (one, two) = (signing_key("k1").jwks(), signing_key("k2").jwks());
        let (one, two) = (String::from_utf8(one).unwrap(), String::from_utf8(two).unwrap());
        let server = TinyServer::start(move |count| match count {
            0 => json(&one),
            1 => "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into(),
            2 => json("{\"keys\":[]}"),
            3 => json("not json"),
            _ => json(&two),
        });
        let keys = at_url(server.address(), Duration::from_millis(10));
        let following = Arc::clone(&keys);
        let task = tokio::spawn(async move { following.keep_current().await });
        wait_until(|| keys.missing().next().is_none()).await;
        let id = first(&keys).issuer.id;
        let generation = keys.key_set(id).unwrap().generation();
        let failures = |count| first(&keys).status.lock().failures >= count;
        for count in 1..=3 {
            wait_until(|| {
                keys.ask_for_refresh(id);
                failures(count)
            })
            .await;
            assert_eq!(
                keys.key_set(id).unwrap().generation(),
                generation,
                "the last good set stays"
            );
        }
        wait_until(|| {
            keys.ask_for_refresh(id);
            keys.key_set(id).unwrap().generation() != generation
        })
        .await;
        assert_eq!(keys.key_set(id).unwrap().len(), 1, "replaced, not merged");
        task.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keys_that_cannot_be_read_again_are_given_up_in_the_end_and_come_back() {
        let jwks = String::from_utf8(signing_key("k1").jwks()).unwrap();
        let answers = Arc::new(Mutex::new(json(&jwks)));
        let told = Arc::clone(&answers);
        let server = TinyServer::start(move |_| told.lock().clone());
        let mut keys = at_url(server.address(), Duration::from_millis(10));
        let slot = &mut Arc::get_mut(&mut keys).unwrap().slots[0];
        let slot = Arc::get_mut(slot).unwrap();
        if let KeySource::JwksUrl { max_stale, .. } = &mut slot.issuer.keys {
            *max_stale = Duration::from_millis(300);
        }
        let following = Arc::clone(&keys);
        let task = tokio::spawn(async move { following.keep_current().await });
        wait_until(|| keys.missing().next().is_none()).await;
        let id = first(&keys).issuer.id;
        let generation = keys.key_set(id).unwrap().generation();
        assert!(keys.is_current(id, generation, Ordering::Acquire));

        "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".clone_into(&mut *answers.lock());
        let ask_until = async |done: &dyn Fn() -> bool| {
            wait_until(|| {
                keys.ask_for_refresh(id);
                done()
            })
            .await;
        };
        ask_until(&|| keys.missing().next().is_some()).await;
        assert!(!keys.is_current(id, generation, Ordering::Acquire));
        first(&keys).replaced().await;

        *answers.lock() = json(&jwks);
        ask_until(&|| keys.missing().next().is_none()).await;
        task.abort();
    }

    #[test]
    fn a_file_that_is_not_there_or_not_keys_is_an_error_at_start() {
        let folder = std::env::temp_dir().join(format!("durward-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("bad.json"), "{").unwrap();
        std::fs::write(folder.join("good.json"), signing_key("k").jwks()).unwrap();
        let start =
            |file: &str| IssuerKeys::new(&foreign_policy(&format!("jwks: {file}")), &folder).map(|_| ());
        assert!(start("absent.json").unwrap_err().contains("cannot read"));
        assert!(start("bad.json").unwrap_err().contains("not a JSON Web Key Set"));
        start("good.json").unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
