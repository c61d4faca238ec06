//! falaj: events from Kafka and Postgres' WAL through SQL files into Redis, Parquet, HTTP and Kafka, exactly once, in well under a second.
//!
//! ```text
//!  enters                          thinks                                 leaves
//!  Kafka ──▶ log: read, decode ──▶ lane: one INSERT INTO … SELECT ──▶ Redis · Parquet · HTTP · Kafka
//!  WAL       (once per source)     lookup join → SQL → panes               │ refused rows
//!                │ bad records         │ late rows                         │
//!                └────────────────────▶┴──────▶ dead letters ◀─────────────┘
//!            a lane drives itself, one epoch at a time: intent → apply → commit
//! ```
//!
//! # The guarantee
//!
//! Each record of a source counts once in each sink, whatever dies: a lane writes down what an epoch is before it touches the sink
//! (*intent*), every sink's *apply* is idempotent under lineage, lane and epoch, and only the *commit* lets the lane go on. After a
//! crash, and after any error inside an epoch, one recovery path does the same again. HTTP counts once if the receiver honours the
//! `Idempotency-Key`, and at least once if it does not; Kafka counts once for consumers that read committed records.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | source, sink, lookup | an external table that is read as a log, written, asked by key |
//! | log | the tail of one source, decoded once and shared by every lane |
//! | segment | a decoded, contiguous piece of one log |
//! | partition, offset | as in Kafka; an offset is the *next* to read |
//! | span, positions | offsets `[from, to)` of one partition; an offset for each partition |
//! | lane | one `INSERT INTO sink SELECT …` with positions, state and epochs of its own |
//! | epoch | one numbered trip of a lane through intent → apply → commit, without gaps |
//! | intent, commit, claim | the durable records "epoch e is these spans, decided so", "epoch e is applied", "this process drives the lane" |
//! | lineage, incarnation | the id of the history of a checkpoint, or of a lane since a backfill was handed over to it; the number of a claim |
//! | staged | written and durable, but not yet visible to a reader |
//! | snapshot | window state as of an epoch |
//! | watermark | no earlier event time is expected |
//! | pane | the smallest slice of event time for which state is kept; a window is a run of panes |
//! | late row | one whose every window is already final |
//! | dead letter | a record, row or write that could not be handled, kept with where and why |
//!
//! # What always holds
//!
//! - Of each lane: records in its spans = used + filtered + late + dead + skipped (tombstones).
//! - Watermarks, offsets and epochs only grow, and spans touch: the end of one epoch is the start of the next.
//! - Every time that has a say in a result is decided once, in the intent: a redone epoch judges its rows by the same clock.
//! - What cannot be computed alike again is staged first and published byte for byte: files, HTTP bodies.
//! - One bad record never costs a good one, and a slow sink never delays another lane.
//! - SQL is planned once, at the start; nothing in the loop plans, and nothing in it costs more with more history or more panes.
//! - Every queue, batch, cache, retry and body has a bound, with its reason beside it.
//!
//! Absent on purpose: consumer groups (positions are ours, one process drives a checkpoint), a resource manager, operators that
//! keep raw events, and undo: there is no code that takes an epoch back.
//!
//! # Where to read
//!
//! Modules in the order in which data flows: [`source`] (and its [`source::log`]) → [`decode`] (and [`registry`]) → [`lookup`] → [`query`] →
//! [`window`] → [`lane`] → [`checkpoint`] → [`sink`], [`dead`] (both over `kafka`'s transactions; [`s3`] is how checkpoint, files and outbox reach a bucket). Begin with [`lane`]: the loop is [`lane::driver`], the protocol
//! [`lane::epoch`]. [`app`] puts adapters together and is the only module that names them; [`tool`] has one file for each command.
//! [`app::backfill`] reads history again, beside the lanes; [`checkpoint::handover`] is how its results take the place of theirs.
//! The words that all share are in [`position`], [`batch`], [`headers`], [`error`], [`backoff`], [`table`], [`settings`],
//! [`secrets`], [`private`], [`clock`], [`status`], [`metrics`], [`memory`], [`outage`], [`tls`], [`traces`], [`pgoutput`], [`debezium`], [`failpoint`].
//! Skip [`web`] and [`tool`] at first.

pub mod app;
pub mod backoff;
pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod dead;
pub mod debezium;
pub mod decode;
pub mod error;
pub mod failpoint;
pub mod headers;
pub(crate) mod kafka;
pub mod lane;
pub mod lookup;
pub mod memory;
pub mod metrics;
pub mod outage;
pub mod pgoutput;
pub mod position;
pub(crate) mod postgres;
pub mod private;
pub mod query;
pub mod registry;
pub mod s3;
pub mod secrets;
pub mod settings;
pub mod sink;
pub mod source;
pub mod status;
pub mod table;
pub mod tls;
pub mod tool;
pub mod traces;
pub mod web;
pub mod window;
