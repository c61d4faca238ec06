//! The spans themselves, made when they are over: nothing is held across an await, and a lane that is not traced pays nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData};
use parking_lot::Mutex;

use super::Epoch;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// How long the last spans may take.
const STOP_MAX: Duration = Duration::from_secs(2);
/// An epoch has five parts, and a lane that takes for long before it rolls notes none twice.
const PARTS_MAX: usize = 64;

static PROVIDER: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

pub(super) fn start(is_nameless: bool) -> Result<()> {
    let wrong =
        |cause| Error::new(Kind::Sql, "the variables OTEL_EXPORTER_OTLP_… say no place that traces could go to").because(cause);
    let exporter = SpanExporter::builder().with_http().build().map_err(wrong)?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_nameless {
        resource = resource.with_service_name("falaj");
    }
    let exporter = Watched { exporter, is_away: AtomicBool::new(false) };
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer("falaj");
    // A second start in one process keeps the first.
    let _ = PROVIDER.set((provider, tracer));
    Ok(())
}

pub(super) fn stop() {
    if let Some((provider, _)) = PROVIDER.get()
        && let Err(cause) = provider.shutdown_with_timeout(STOP_MAX)
    {
        tracing::debug!("the last traces were not sent: {cause}");
    }
}

/// The parts of the epoch that a lane is at, each with its begin and its length.
#[derive(Debug, Default)]
pub struct Parts(Mutex<Vec<(&'static str, SystemTime, Duration)>>);

impl Parts {
    /// Notes a part that ends now.
    pub fn note(&self, name: &'static str, took: Duration) {
        if PROVIDER.get().is_none() {
            return;
        }
        let mut parts = self.0.lock();
        if parts.len() < PARTS_MAX {
            parts.push((name, now() - took, took));
        }
    }

    /// The epoch came to nothing.
    pub fn forget(&self) {
        self.0.lock().clear();
    }

    /// The epoch is over.
    pub fn send(&self, epoch: Epoch<'_>) {
        let Some((_, tracer)) = PROVIDER.get() else { return };
        let parts = std::mem::take(&mut *self.0.lock());
        let Some(began) = parts.iter().map(|(_, began, _)| *began).min() else { return };
        let attributes = [
            lane(epoch.lane),
            KeyValue::new("falaj.epoch", number(epoch.epoch)),
            KeyValue::new("falaj.records", number(epoch.records)),
            KeyValue::new("falaj.rows", number(epoch.rows)),
            KeyValue::new("falaj.letters", number(epoch.letters)),
        ];
        let span = tracer.build(SpanBuilder::from_name("epoch").with_start_time(began).with_attributes(attributes));
        let of_epoch = Context::new().with_span(span);
        for (name, began, took) in parts {
            let part = SpanBuilder::from_name(name).with_start_time(began).with_attributes([lane(epoch.lane)]);
            tracer.build_with_context(part, &of_epoch).end_with_timestamp(began + took);
        }
        of_epoch.span().end();
    }
}

pub(super) fn recovery(of: &str, incarnation: u64, took: Duration) {
    let attributes = vec![lane(of), KeyValue::new("falaj.incarnation", number(incarnation))];
    send("recovery", attributes, took, Status::Unset);
}

pub(super) fn outage(of: &str, why: &str, lasted: Duration) {
    send("outage", vec![lane(of)], lasted, Status::error(why.to_string()));
}

fn send(name: &'static str, attributes: Vec<KeyValue>, took: Duration, status: Status) {
    let Some((_, tracer)) = PROVIDER.get() else { return };
    let begun = SpanBuilder::from_name(name).with_start_time(now() - took).with_attributes(attributes);
    let mut span = tracer.build(begun);
    span.set_status(status);
    span.end();
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(Clock::system().now_ns().unsigned_abs())
}

fn lane(name: &str) -> KeyValue {
    KeyValue::new("falaj.lane", name.to_string())
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Says once that whoever takes the traces is away, and once that he is back.
#[derive(Debug)]
struct Watched {
    exporter: SpanExporter,
    is_away: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        match &sent {
            Err(cause) if !self.is_away.swap(true, Ordering::Relaxed) => {
                tracing::warn!("traces cannot be sent and are dropped: {cause}");
            }
            Ok(()) if self.is_away.swap(false, Ordering::Relaxed) => tracing::info!("traces are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
