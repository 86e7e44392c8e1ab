//! Reading the stream, and applying what comes.

use std::time::Instant;

use redis::{Value, cmd};

use super::{Following, State};
use crate::connection::Timeouts;
use crate::protocol::EpochKeys;
use crate::store_error::{StoreError, StoreFault};
use crate::stream_batch::{Batch, read_batches};

/// How many batches are read at a time.
const READ_BATCHES: u32 = 64;

impl Following {
    /// Applies each batch as it comes. On a connection of its own: while Redis blocks it, nothing
    /// else that is asked there is answered, not even once we no longer wait.
    pub(super) async fn read_stream(&self, epoch: &EpochKeys) -> StoreError {
        let options = &self.shared.options;
        let blocking = Timeouts {
            response: options.block + options.timeouts.response,
            ..options.timeouts
        };
        let mut node = match self.shared.connector.connect_home(blocking).await {
            Ok(node) => node,
            Err(error) => return error,
        };
        loop {
            let after = self.state.lock().applied;
            let mut command = cmd("XREAD");
            command.arg("COUNT").arg(READ_BATCHES).arg("BLOCK");
            command.arg(u64::try_from(options.block.as_millis()).unwrap_or(u64::MAX));
            command
                .arg("STREAMS")
                .arg(&epoch.stream)
                .arg(format!("{}-0", after.0));
            let batches = match node.ask(&command).await {
                Ok(Value::Nil) => continue,
                Ok(reply) => read_batches(reply),
                Err(error) => return error,
            };
            let Some(batches) = batches else {
                self.state.lock().reload = true;
                return StoreError::unexpected("XREAD");
            };
            for batch in batches {
                if let Err(error) = self.apply(batch) {
                    self.state.lock().reload = true;
                    return error;
                }
            }
            self.applied.notify_one();
        }
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let applied = state.applied;
        if batch.last <= applied {
            return Ok(());
        }
        if batch.first.0 > applied.0 + 1 {
            return Err(StoreError::new(
                StoreFault::NotReady,
                format_args!("news between {} and {} is missing", applied.0, batch.first.0),
            ));
        }
        self.follower.apply(&batch.news, batch.last);
        state.applied = batch.last;
        if batch.unreadable > 0 {
            self.say_unreadable(&mut state, batch.unreadable);
        }
        let mut status = self.shared.status.lock();
        status.applied = batch.last;
        status.unreadable = state.unreadable_since.is_some();
        Ok(())
    }

    pub(super) fn say_unreadable(&self, state: &mut State, entries: usize) {
        state.unreadable_since.get_or_insert_with(Instant::now);
        tracing::error!(
            entries,
            "entries of the revocation log cannot be read, so that nothing it says counts as fresh: \
             is a gateway older than the auth service?"
        );
    }
}
