//! Traces by OTLP (protobuf over HTTP), where falaj was built with the feature `otlp` and `OTEL_EXPORTER_OTLP_ENDPOINT` says where to.
//!
//! | span | lasts | attributes |
//! |---|---|---|
//! | `epoch` | from its first segment to its commit | `falaj.lane`, `falaj.epoch`, `falaj.records`, `falaj.rows`, `falaj.letters` |
//! | `plan`, `stage`, `intent`, `apply`, `commit` | the parts of an epoch, as the metrics know them | `falaj.lane` |
//! | `recovery` | from the claim until the lane runs | `falaj.lane`, `falaj.incarnation` |
//! | `outage` | from the first failure until the lane runs again | `falaj.lane`, and the failure as its status |
//!
//! The commit of a lane that commits late is a part of the next epoch's intent. Spans are sent by a thread of their own, from a queue that is bounded; what does not fit is
//! dropped. `OTEL_TRACES_SAMPLER`, `OTEL_BSP_…` and the other variables of OpenTelemetry's SDK hold.

#[cfg(feature = "otlp")]
mod otlp;

use std::time::Duration;

#[cfg(feature = "otlp")]
pub use otlp::Parts;

use crate::error::Result;

/// An epoch that is over.
#[derive(Debug, Clone, Copy)]
pub struct Epoch<'a> {
    /// Whose.
    pub lane: &'a str,
    /// Its number.
    pub epoch: u64,
    /// Records in its spans.
    pub records: u64,
    /// Rows that a reader can see because of it.
    pub rows: u64,
    /// Its dead letters.
    pub letters: u64,
}

/// The parts of the epoch that a lane is at: nothing, where there are no traces.
#[cfg(not(feature = "otlp"))]
#[derive(Debug, Default)]
pub struct Parts(());

#[cfg(not(feature = "otlp"))]
impl Parts {
    /// Notes a part that ends now.
    pub fn note(&self, _name: &'static str, _took: Duration) {}

    /// The epoch came to nothing.
    pub fn forget(&self) {}

    /// The epoch is over.
    pub fn send(&self, _epoch: Epoch<'_>) {}
}

/// A lane runs again after a start or an error.
pub fn recovery(lane: &str, incarnation: u64, took: Duration) {
    #[cfg(feature = "otlp")]
    otlp::recovery(lane, incarnation, took);
    #[cfg(not(feature = "otlp"))]
    let _ = (lane, incarnation, took);
}

/// A lane runs again after `lasted`; `why` is what went wrong first.
pub fn outage(lane: &str, why: &str, lasted: Duration) {
    #[cfg(feature = "otlp")]
    otlp::outage(lane, why, lasted);
    #[cfg(not(feature = "otlp"))]
    let _ = (lane, why, lasted);
}

/// Traces that are being sent, until this is dropped: then the last ones are, within two seconds.
#[derive(Debug)]
pub struct Traces;

/// Begins to send traces, if somebody is named who takes them.
#[allow(clippy::disallowed_methods, reason = "the variables by which all programs are told where their traces go")]
pub fn start() -> Result<Option<Traces>> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_set("OTEL_EXPORTER_OTLP_ENDPOINT") && !is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(None);
    }
    #[cfg(feature = "otlp")]
    otlp::start(!is_set("OTEL_SERVICE_NAME"))?;
    #[cfg(not(feature = "otlp"))]
    tracing::warn!(
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this falaj was built without traces; build it by 'cargo build --release --features otlp'"
    );
    Ok(Some(Traces))
}

impl Drop for Traces {
    fn drop(&mut self) {
        #[cfg(feature = "otlp")]
        otlp::stop();
    }
}
