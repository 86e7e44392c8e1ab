//! How many requests are on their way, for the drain at shutdown.

use crate::sharded::Counters;

const ENTERED: usize = 0;
const LEFT: usize = 1;

pub(crate) struct InFlight(Counters);

impl Default for InFlight {
    fn default() -> Self {
        Self(Counters::new(2))
    }
}

impl InFlight {
    pub(crate) fn enter(&self) {
        self.0.add(ENTERED, 1);
    }

    pub(crate) fn leave(&self) {
        self.0.add(LEFT, 1);
    }

    /// How many there are. Read in this order, a request that leaves meanwhile counts as there.
    pub(crate) fn count(&self) -> u64 {
        let left = self.0.get(LEFT);
        self.0.get(ENTERED).saturating_sub(left)
    }
}
