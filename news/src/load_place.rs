//! A place among the gateways that load at the same time.
//!
//! To read all of a large epoch keeps Redis busy for a while. When a whole fleet starts, or finds that
//! Redis was built anew, a few gateways at a time are served quickly instead of all of them slowly, and
//! what everybody asks beside it is answered in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dial::Ask;
use crate::protocol::{Keys, PLACE};
use crate::store_error::StoreError;

/// After how long a place is lost that nobody keeps.
const PLACE_TTL: Duration = Duration::from_secs(5);

pub(crate) struct LoadPlace {
    /// Whose place it is.
    gateway: String,
    /// How many places there are.
    places: u32,
    held: AtomicBool,
}

/// What became of asking for a place.
pub(crate) struct Asked {
    pub granted: bool,
    /// The epoch that is current; empty where there is none.
    pub epoch: String,
}

impl LoadPlace {
    pub(crate) fn new(gateway: &str, places: u32) -> Self {
        Self {
            gateway: gateway.to_owned(),
            places: places.max(1),
            held: AtomicBool::new(false),
        }
    }

    pub(crate) async fn take(&self, node: &mut impl Ask, keys: &Keys) -> Result<Asked, StoreError> {
        let asked = self.ask(node, keys, "take").await?;
        self.held.store(asked.granted, Ordering::SeqCst);
        Ok(asked)
    }

    /// To be called more often than a place is lost, on any connection. One that was lost all the same
    /// is not missed: then one more loads at the same time.
    pub(crate) async fn keep(&self, node: &mut impl Ask, keys: &Keys) -> Result<(), StoreError> {
        if self.held.load(Ordering::SeqCst) {
            self.ask(node, keys, "keep").await?;
        }
        Ok(())
    }

    pub(crate) async fn give_back(&self, node: &mut impl Ask, keys: &Keys) -> Result<(), StoreError> {
        self.held.store(false, Ordering::SeqCst);
        self.ask(node, keys, "give").await.map(drop)
    }

    /// Where a load failed, with its connection: the place is lost in a while.
    pub(crate) fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    async fn ask(&self, node: &mut impl Ask, keys: &Keys, word: &str) -> Result<Asked, StoreError> {
        let arguments = [
            word.to_owned(),
            self.gateway.clone(),
            PLACE_TTL.as_millis().to_string(),
            self.places.to_string(),
        ];
        let (granted, epoch): (u8, String) = PLACE.run(node, &[&keys.meta, &keys.loads], &arguments).await?;
        Ok(Asked {
            granted: granted == 1,
            epoch,
        })
    }
}
