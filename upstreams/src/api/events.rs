//! `GET /api/events`: server-sent events, to see how the gateway treats a
//! response that does not end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{ApiState, user::User};
use crate::problem::Problem;

/// The time between two ticks.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// The longest silence before a comment is sent to keep the connection.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Answers with a `hello` event that names the user, then a `tick` a second,
/// until the client leaves or the server stops.
pub(super) async fn events(
    State(state): State<Arc<ApiState>>,
    user: User,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let place = Arc::clone(&state.event_streams).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("too many event streams are open"))?;
    let hello = Event::default().event("hello").data(json!(user).to_string());
    let mut stopping = state.stopping.clone();
    let events = stream::once(async { hello })
        .chain(ticks())
        .take_until(async move { stopping.requested().await })
        .map(move |event| {
            // The stream holds its place for as long as it lives.
            let _place = &place;
            Ok(event)
        });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_EVERY);
    Ok(Sse::new(events).keep_alive(keep_alive))
}

fn ticks() -> impl Stream<Item = Event> {
    let mut clock = interval_at(Instant::now() + TICK_EVERY, TICK_EVERY);
    // A reader that fell behind gets no burst of ticks to catch up.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((clock, 1_u64), |(mut clock, tick)| async move {
        clock.tick().await;
        let event = Event::default().event("tick").id(tick.to_string());
        let event = event.data(json!({ "tick": tick }).to_string());
        Some((event, (clock, tick + 1)))
    })
}
