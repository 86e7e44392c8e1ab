//! Reading `rate_limit_store`.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use durward_config::{Diagnostics, Node};
use durward_news::RedisTarget;

use super::store::RateLimitStore;
use crate::config::duration;

const DEFAULT_DEADLINE: Duration = Duration::from_millis(50);
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);

/// `{ store: redis://HOST:PORT, redis: { ... }, deadline: 50ms }`.
pub(crate) fn compile_rate_limit_store(
    node: Option<&Node>,
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<RateLimitStore> {
    let mut section = node?.section("`rate_limit_store`", diagnostics)?;
    let store = section.required("store", "write `store: redis://HOST:PORT`", diagnostics);
    let options = section.optional("redis");
    let deadline = duration(
        section.optional("deadline"),
        "`deadline`",
        DEADLINES,
        DEFAULT_DEADLINE,
        diagnostics,
    );
    section.finish(diagnostics);
    let target = RedisTarget::compile(store?, options, base, diagnostics)?;
    Some(RateLimitStore { target, deadline })
}
