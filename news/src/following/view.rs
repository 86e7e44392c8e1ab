//! How things stand, as one pulse saw them.

use durward_contract::Sequence;

use crate::dial::Node;
use crate::protocol::{Keys, Meta, PULSE, Report};
use crate::store_error::StoreError;

pub(crate) struct View {
    /// The tick that it showed.
    pub tick: u64,
    pub meta: Option<Meta>,
    pub attested: Option<Attestation>,
    /// SQL has had less than Redis.
    pub went_back: bool,
}

/// The one of the highest tick.
pub(crate) struct Attestation {
    pub tick: u64,
    pub head: Sequence,
    pub epoch: String,
}

impl View {
    /// Reports what this gateway has, and hears how things stand.
    pub(crate) async fn of(
        node: &mut Node,
        keys: &Keys,
        gateway: &str,
        report: &Report,
    ) -> Result<Self, StoreError> {
        type Seen = (
            Option<u64>,
            Option<u64>,
            Option<u64>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
        );
        let (tick, attested, attested_head, attested_epoch, epoch, log, head, went_back): Seen = PULSE
            .run(
                node,
                &[&keys.meta, &keys.pulse, &keys.gateways],
                &[gateway.to_owned(), report.to_text()],
            )
            .await?;
        let attested = match (attested, attested_head, attested_epoch) {
            (Some(tick), Some(head), Some(epoch)) => Some(Attestation {
                tick,
                head: Sequence(head),
                epoch,
            }),
            _ => None,
        };
        Ok(Self {
            tick: tick.unwrap_or(0),
            meta: Meta::read(epoch, log, head.as_deref()),
            attested,
            went_back: went_back.is_some(),
        })
    }
}
