//! `/metrics`: every name, with its help and unit, and where its figure comes from. The figures are those of [`crate::status`]: they
//! are read when somebody asks, and nothing is counted twice.
//!
//! Of each lane `falaj_records_total` = used + filtered + late + dead + skipped.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::status::{
    BackfillSnapshot, CaptureSnapshot, Distribution, LaneSnapshot, LaneState, LookupSnapshot, PartitionLag, Snapshot, Status,
};

/// The bounds of the histograms: from below a millisecond to the seconds that no event should take.
const BOUNDS_US: [u64; 14] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 30_000_000];

/// Name without `_total`, help, unit, figure.
type Counter<S> = (&'static str, &'static str, Option<Unit>, fn(&S) -> u64);
/// Name, help, unit, figure; `None` is left out.
type Gauge<S> = (&'static str, &'static str, Option<Unit>, fn(&S) -> Option<f64>);

const LANE_COUNTERS: [Counter<LaneSnapshot>; 12] = [
    ("falaj_records", "Records in the spans of committed epochs", None, |lane| lane.records),
    ("falaj_used_rows", "Rows that the query used", None, |lane| lane.used),
    (
        "falaj_filtered_rows",
        "Rows that the query's filters left out, and those of replayed records that are for another lane; of a lane of dead \
         letters, the good records",
        None,
        |lane| lane.filtered,
    ),
    ("falaj_late_rows", "Rows whose every window was final, or whose time lay too far ahead", None, |lane| lane.late),
    ("falaj_dead_records", "Records that could not be decoded, or rows for which SQL failed", None, |lane| lane.dead),
    ("falaj_skipped_records", "Records without a row: tombstones, changes that the table leaves out", None, |lane| {
        lane.skipped
    }),
    ("falaj_lost_offsets", "Offsets that the source no longer had, gone over because its table says so", None, |lane| {
        lane.lost
    }),
    ("falaj_emitted_rows", "Rows that the sink made visible", None, |lane| lane.emitted),
    ("falaj_refused_rows", "Rows that the sink refused", None, |lane| lane.refused),
    ("falaj_left_out_rows", "Rows of windows without a key or a score, as often as they were to be written", None, |lane| {
        lane.left_out
    }),
    ("falaj_sink_retries", "Attempts of the sink beyond the first", None, |lane| lane.retries),
    ("falaj_epochs", "Committed epochs of the checkpoint's history", None, |lane| lane.epoch),
];

const LANE_GAUGES: [Gauge<LaneSnapshot>; 8] = [
    ("falaj_lane_up", "1 while the lane runs or is done, 0 while it starts, waits or has stopped", None, |lane| {
        Some(f64::from(u8::from(matches!(lane.state, LaneState::Running | LaneState::Done))))
    }),
    ("falaj_lane_stopped", "1 when the lane has stopped by an error, and will not go on by itself", None, |lane| {
        Some(f64::from(u8::from(lane.state == LaneState::Stopped)))
    }),
    ("falaj_watermark_timestamp", "No earlier event time is expected", Some(Unit::Seconds), |lane| {
        lane.watermark_ns.map(|ns| ns as f64 / 1e9)
    }),
    (
        "falaj_board_timestamp",
        "The time that the lane's leaderboard shows; none of an empty one",
        Some(Unit::Seconds),
        |lane| lane.board_ns.map(|ns| ns as f64 / 1e9),
    ),
    ("falaj_commit_timestamp", "When the lane's last commit was recorded, by this process", Some(Unit::Seconds), |lane| {
        (lane.committed_ms > 0).then(|| lane.committed_ms as f64 / 1e3)
    }),
    ("falaj_state_panes", "Panes of window state", None, |lane| Some(lane.panes as f64)),
    ("falaj_state", "Memory held by window state", Some(Unit::Bytes), |lane| Some(lane.state_bytes as f64)),
    ("falaj_snapshot_timestamp", "When the last snapshot of window state was recorded", Some(Unit::Seconds), |lane| {
        (lane.snapshot_at_ms > 0).then(|| lane.snapshot_at_ms as f64 / 1e3)
    }),
];

const LAG_GAUGES: [Gauge<LagOf>; 2] = [
    ("falaj_lag_records", "Records between the lane's position and the log end", None, |lag| Some(lag.lag.records as f64)),
    (
        "falaj_lag",
        "No record that waits for the lane is older, by the time at which it was appended",
        Some(Unit::Seconds),
        |lag| lag.lag.seconds(lag.now_ms),
    ),
];

/// How far a lane is behind in one partition, now.
struct LagOf {
    lane: String,
    topic: String,
    lag: PartitionLag,
    now_ms: i64,
}

const LOOKUP_COUNTERS: [Counter<LookupSnapshot>; 3] = [
    ("falaj_lookup_misses", "Keys asked for that were not in memory", None, |lookup| lookup.misses),
    ("falaj_lookup_unanswered", "Misses taken as without a row, since the store did not answer", None, |lookup| {
        lookup.unanswered
    }),
    ("falaj_lookup_version", "Changes of what the lookup holds: its version", None, |lookup| lookup.version),
];

const LOOKUP_GAUGES: [Gauge<LookupSnapshot>; 4] = [
    ("falaj_lookup_rows", "Rows held", None, |lookup| Some(lookup.rows as f64)),
    ("falaj_lookup", "Memory held", Some(Unit::Bytes), |lookup| Some(lookup.bytes as f64)),
    ("falaj_lookup_trouble", "1 while it cannot be loaded or asked; what it held stays in use", None, |lookup| {
        Some(f64::from(u8::from(lookup.trouble.is_some())))
    }),
    ("falaj_lookup_loaded_timestamp", "When it was last loaded whole", Some(Unit::Seconds), |lookup| {
        (lookup.loaded_ms > 0).then(|| lookup.loaded_ms as f64 / 1e3)
    }),
];

const CAPTURE_COUNTERS: [Counter<CaptureSnapshot>; 1] =
    [("falaj_capture_changes", "Changes received from Postgres; after a restart some come again", None, |capture| {
        capture.changes
    })];

const CAPTURE_GAUGES: [Gauge<CaptureSnapshot>; 4] = [
    ("falaj_capture_lag", "WAL behind what is acknowledged", Some(Unit::Bytes), |capture| Some(capture.lag_bytes as f64)),
    ("falaj_capture_retained_wal", "WAL that Postgres keeps for the slot", Some(Unit::Bytes), |capture| {
        Some(capture.retained_bytes as f64)
    }),
    ("falaj_capture_waiting", "Changes that wait for a lane, in memory and on disk", Some(Unit::Bytes), |capture| {
        Some(capture.waiting_bytes as f64)
    }),
    ("falaj_capture_copied_rows", "Rows copied by the running or last snapshots of the slot's tables", None, |capture| {
        Some(capture.copies.iter().map(|copy| copy.rows).sum::<u64>() as f64)
    }),
];

const BACKFILL_GAUGES: [Gauge<BackfillSnapshot>; 2] = [
    ("falaj_backfill_left_records", "Records that the backfill of the lane has still to read", None, |backfill| {
        Some(backfill.left as f64)
    }),
    ("falaj_backfill_event_timestamp", "The event time that it has reached", Some(Unit::Seconds), |backfill| {
        backfill.event_time_ns.map(|ns| ns as f64 / 1e9)
    }),
];

const MEMORY_GAUGES: [Gauge<Snapshot>; 2] = [
    ("falaj_memory_limit", "What logs, state, lookups and sinks may hold together", Some(Unit::Bytes), |status| {
        status.memory.limit_bytes.map(|bytes| bytes as f64)
    }),
    ("falaj_memory_used", "What they hold", Some(Unit::Bytes), |status| Some(status.memory.used_bytes as f64)),
];

/// Everything as it is now, in Prometheus' text format 0.0.4.
pub fn text(status: &Status) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(status.clone())));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)
        .map_err(|cause| Error::new(Kind::Bug, "the metrics could not be written").because(cause))?;
    Ok(text)
}

#[derive(Debug)]
struct Figures(Status);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = self.0.snapshot();
        let mut write = Write { encoder: &mut encoder };
        write.counters(&LANE_COUNTERS, &status.lanes, |lane| [("lane", lane.name.clone())])?;
        write.gauges(&LANE_GAUGES, &status.lanes, |lane| [("lane", lane.name.clone())])?;
        write.gauges(&LAG_GAUGES, &lags(&status.lanes, Clock::system().now_ms()), |of| {
            [("lane", of.lane.clone()), ("topic", of.topic.clone()), ("partition", of.lag.partition.to_string())]
        })?;
        write.counters(&LOOKUP_COUNTERS, &status.lookups, |lookup| [("table", lookup.name.clone())])?;
        write.gauges(&LOOKUP_GAUGES, &status.lookups, |lookup| [("table", lookup.name.clone())])?;
        write.counters(&CAPTURE_COUNTERS, &status.captures, |capture| [("slot", capture.slot.clone())])?;
        write.gauges(&CAPTURE_GAUGES, &status.captures, |capture| [("slot", capture.slot.clone())])?;
        write.gauges(&BACKFILL_GAUGES, &status.backfills, |backfill| [("lane", backfill.lane.clone())])?;
        write.gauges(&MEMORY_GAUGES, std::slice::from_ref(&status), |_| [])?;
        let build = [([("version", env!("CARGO_PKG_VERSION"))], ConstGauge::new(1.0))];
        write.family("falaj_build_info", "The version that runs", None, &build)?;
        let (mut latency, mut events, mut phases, mut snapshots) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, lane) in self.0.lanes() {
            latency.push((vec![("lane", name.clone())], lane.latency_distribution(&BOUNDS_US)));
            events.push((vec![("lane", name.clone())], lane.event_latency_distribution(&BOUNDS_US)));
            for (phase, times) in lane.phase_distributions(&BOUNDS_US) {
                phases.push((vec![("lane", name.clone()), ("phase", phase.to_string())], times));
            }
        }
        for lane in &status.lanes {
            snapshots.push(([("lane", lane.name.clone())], ConstCounter::new(lane.snapshots_us as f64 / 1e6)));
        }
        write.histogram("falaj_latency", "From a record's append to the log until its row is visible in the sink", &latency)?;
        write.histogram(
            "falaj_event_latency",
            "From when the newest event of an epoch happened until it is visible in the sink",
            &events,
        )?;
        write.histogram("falaj_epoch_phase", "How long each part of an epoch takes", &phases)?;
        write.family("falaj_snapshots", "Time that went into snapshots of window state", Some(&Unit::Seconds), &snapshots)
    }
}

fn lags(lanes: &[LaneSnapshot], now_ms: i64) -> Vec<LagOf> {
    let of = |lane: &LaneSnapshot, lag: &PartitionLag| LagOf {
        lane: lane.name.clone(),
        topic: lane.wiring.source.clone(),
        lag: lag.clone(),
        now_ms,
    };
    lanes.iter().flat_map(|lane| lane.partitions.iter().map(move |lag| of(lane, lag))).collect()
}

struct Write<'w, 'e> {
    encoder: &'w mut DescriptorEncoder<'e>,
}

impl Write<'_, '_> {
    fn counters<S, const N: usize>(
        &mut self,
        counters: &[Counter<S>],
        all: &[S],
        labels: fn(&S) -> [(&'static str, String); N],
    ) -> fmt::Result {
        counters.iter().try_for_each(|(name, help, unit, figure)| {
            let figures: Vec<_> = all.iter().map(|one| (labels(one), ConstCounter::new(figure(one)))).collect();
            self.family(name, help, unit.as_ref(), &figures)
        })
    }

    fn gauges<S, const N: usize>(
        &mut self,
        gauges: &[Gauge<S>],
        all: &[S],
        labels: fn(&S) -> [(&'static str, String); N],
    ) -> fmt::Result {
        gauges.iter().try_for_each(|(name, help, unit, figure)| {
            let figure = |one| Some((labels(one), ConstGauge::new(figure(one)?)));
            self.family(name, help, unit.as_ref(), &all.iter().filter_map(figure).collect::<Vec<_>>())
        })
    }

    /// Nothing is written of a name that nobody has.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        figures: &[(impl EncodeLabelSet, impl EncodeMetric)],
    ) -> fmt::Result {
        let Some((_, first)) = figures.first() else { return Ok(()) };
        let mut family = self.encoder.encode_descriptor(name, help, unit, first.metric_type())?;
        figures.iter().try_for_each(|(labels, figure)| figure.encode(family.encode_family(labels)?))
    }

    fn histogram(&mut self, name: &str, help: &str, all: &[(impl EncodeLabelSet, Distribution)]) -> fmt::Result {
        if all.is_empty() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, times) in all {
            let beyond = times.count - times.counts.iter().sum::<u64>();
            let bounds = BOUNDS_US.iter().map(|&bound| bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(times.counts.iter().copied().chain([beyond])).collect();
            family.encode_family(labels)?.encode_histogram::<NoLabelSet>(times.sum_us / 1e6, times.count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::status::{Phase, Wiring};

    #[test]
    fn every_figure_has_a_name_with_help_and_histograms_count_up_to_infinity() {
        let status = Status::default();
        let lane = status.lane("top \"content\"");
        lane.records.store(7, Ordering::Relaxed);
        lane.record_latency(1_200);
        lane.record_latency(90_000_000);
        lane.record_phase(Phase::Apply, Duration::from_millis(3));
        lane.record_event_latency(7_000);
        lane.set_wiring(Wiring { source: "events".to_string(), ..Wiring::default() });
        let waits = PartitionLag { partition: 1, records: 4, taken_to_ms: Some(Clock::system().now_ms() + 60_000) };
        lane.set_lags(vec![PartitionLag { partition: 0, records: 0, taken_to_ms: None }, waits]);
        status.lookup("content").version.store(3, Ordering::Relaxed);
        status.backfill("top").note(Some(40), Some(2_500_000_000));
        status.capture("falaj").retained_bytes.store(1 << 20, Ordering::Relaxed);
        let text = text(&status).unwrap();
        for line in [
            r#"falaj_records_total{lane="top \"content\""} 7"#,
            r#"falaj_lane_up{lane="top \"content\""} 0.0"#,
            r#"falaj_latency_seconds_bucket{lane="top \"content\"",le="0.001"} 0"#,
            r#"falaj_latency_seconds_bucket{lane="top \"content\"",le="0.0025"} 1"#,
            r#"falaj_latency_seconds_bucket{lane="top \"content\"",le="+Inf"} 2"#,
            r#"falaj_epoch_phase_seconds_count{lane="top \"content\"",phase="apply"} 1"#,
            r#"falaj_event_latency_seconds_bucket{lane="top \"content\"",le="0.01"} 1"#,
            r#"falaj_lane_stopped{lane="top \"content\""} 0.0"#,
            r#"falaj_lag_records{lane="top \"content\"",topic="events",partition="1"} 4.0"#,
            r#"falaj_lag_seconds{lane="top \"content\"",topic="events",partition="0"} 0.0"#,
            r#"falaj_lag_seconds{lane="top \"content\"",topic="events",partition="1"} 0.0"#,
            r#"falaj_lookup_version_total{table="content"} 3"#,
            r#"falaj_capture_retained_wal_bytes{slot="falaj"} 1048576.0"#,
            r#"falaj_backfill_left_records{lane="top"} 40.0"#,
            r#"falaj_backfill_event_timestamp_seconds{lane="top"} 2.5"#,
            "# TYPE falaj_records_total counter",
            "# TYPE falaj_epoch_phase_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("falaj_watermark_timestamp"), "a lane without a watermark has none");
        let described = |line: &str| {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            [base, name].iter().any(|name| text.contains(&format!("# HELP {name} ")))
        };
        let lost: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !described(line)).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}
