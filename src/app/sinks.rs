//! Tables into adapters: which sink a table is, when its lane emits, and how it is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Run, World, bucket};
use crate::error::Result;
use crate::lane::Emit;
use crate::lookup::postgres::PostgresLookup;
use crate::memory::{Share, Use};
use crate::outage::Outage;
use crate::query::tables::{Role, role};
use crate::registry::http::HttpRegistry;
use crate::s3::Bucket;
use crate::settings::{Place, Settings};
use crate::sink::Sink;
use crate::sink::files::{FilesOptions, FilesSink};
use crate::sink::http::{HttpOptions, HttpSink};
use crate::sink::kafka::{KafkaSink, KafkaSinkOptions};
use crate::sink::memory::{MemorySink, MemoryTables, Watched};
use crate::sink::print::PrintSink;
use crate::sink::redis::{RedisOptions, RedisSink};
use crate::source::kafka::KafkaOptions;
use crate::source::postgres::PostgresOptions;
use crate::table::TableDef;

pub(super) fn check_table(table: &TableDef) -> Result<()> {
    match role(&table.stored_as, table.unbounded) {
        Ok(Role::Source) if table.stored_as == "POSTGRES" => PostgresOptions::from_table(table).map(|_| ()),
        Ok(Role::Source) if is_framed(table) => KafkaOptions::from_table(table).map(|_| ()),
        // A lane may write it, too.
        Ok(Role::Source) => KafkaOptions::from_table(table).and_then(|_| emit_of(table, &SinkKind::of(table)?)).map(|_| ()),
        Ok(Role::Lookup) => PostgresLookup::new(table).map(|_| ()),
        Ok(Role::Sink) => emit_of(table, &SinkKind::of(table)?).map(|_| ()),
        Err(text) => Err(table.error(text)),
    }
}

/// Whether its records carry the id of a schema in a registry.
pub(super) fn is_framed(table: &TableDef) -> bool {
    let format = table.options.get("format").map(|format| format.to_lowercase());
    table.stored_as == "KAFKA" && matches!(format.as_deref(), Some("avro" | "json-schema" | "protobuf"))
}

/// An address that is not set must not make a check fail.
pub(super) fn placeholder(mut table: TableDef) -> TableDef {
    let scheme = if table.stored_as == "POSTGRES" { "postgres" } else { "redis" };
    if let Some(url) = table.options.get_mut("url").filter(|url| url.as_str() == "unset") {
        *url = format!("{scheme}://unset");
    }
    if table.stored_as == "HTTP" && table.location == "unset" {
        table.location = "http://unset".to_string();
    }
    table
}

/// A sink's options, read.
#[derive(Clone)]
pub(super) enum SinkKind {
    Redis(RedisOptions),
    Files(FilesOptions),
    Http(HttpOptions),
    Kafka(KafkaSinkOptions),
    Print,
}

impl SinkKind {
    pub(super) fn of(table: &TableDef) -> Result<Self> {
        // When rows are emitted is for the lane to know; files and topics look at it themselves.
        let mut bare = table.clone();
        bare.options.remove("emit");
        match table.stored_as.as_str() {
            "REDIS" => RedisOptions::from_table(&bare).map(SinkKind::Redis),
            "HTTP" => HttpOptions::from_table(&bare).map(SinkKind::Http),
            "KAFKA" => KafkaSinkOptions::from_table(table).map(SinkKind::Kafka),
            "PRINT" => bare.options().finish().map(|()| SinkKind::Print),
            _ => FilesOptions::from_table(table).map(SinkKind::Files),
        }
    }
}

pub(super) fn emit_of(table: &TableDef, kind: &SinkKind) -> Result<Emit> {
    let boards = matches!(kind, SinkKind::Redis(redis) if redis.takes_boards());
    let hash = matches!(kind, SinkKind::Redis(redis) if !redis.takes_boards());
    let default = if boards {
        "latest"
    } else if hash {
        "update"
    } else {
        "final"
    };
    let key = ["key", "member"].into_iter().find_map(|option| table.options.get(option));
    let key = key.and_then(|key| table.schema.index_of(key).ok());
    match table.options.get("emit").map_or(default, String::as_str) {
        "final" => Ok(Emit::Final),
        "latest" if boards || matches!(kind, SinkKind::Print) => Ok(Emit::Latest),
        "update" if key.is_some() => Ok(Emit::Update { key: key.into_iter().collect() }),
        "update" => Err(table.error("'emit' 'update' needs a sink with a key: STORED AS REDIS or KAFKA")),
        "latest" => Err(table.error("'emit' 'latest' needs a leaderboard: STORED AS REDIS with 'type' 'zset'")),
        other => Err(table.error(format!("option 'emit' is '{other}'; it must be one of final, update, latest"))),
    }
}

pub(super) fn kept(run: &Run) -> Option<&MemoryTables> {
    match &run.world {
        World::Real => None,
        World::Inside(inside) => inside.kept.as_ref(),
    }
}

/// Where HTTP bodies are kept until they are sent: in a folder and, where the checkpoint is in a bucket, with copies beside it.
#[derive(Clone)]
pub(super) struct Outbox {
    folder: PathBuf,
    copies: Option<Bucket>,
}

impl Outbox {
    /// That of the lanes, or another one which is called `name`.
    pub(super) fn new(settings: &Settings, name: Option<&str>) -> Result<Self> {
        let folder = Path::new(&settings.outbox).join(name.unwrap_or_default());
        let copies = match &settings.checkpoint {
            place if place.is_in_bucket() => {
                let name = name.map_or(String::new(), |name| format!("/{name}"));
                let place = Place(format!("{}/falaj.outbox{name}", place.0.trim_end_matches('/')));
                Some(bucket(&place)?)
            }
            _ => None,
        };
        Ok(Self { folder, copies })
    }
}

pub(super) fn make_sink(
    kind: SinkKind,
    table: &TableDef,
    outbox: &Outbox,
    run: &Run,
    memory: Share,
) -> crate::lane::Make<Box<dyn Sink>> {
    let inside = matches!(run.world, World::Inside(_));
    let outbox = match &run.world {
        World::Real => outbox.clone(),
        World::Inside(inside) => Outbox { folder: inside.folder.join("outbox"), copies: None },
    };
    let column = |option: &str| table.options.get(option).and_then(|name| table.schema.index_of(name).ok());
    let watched = column("member").zip(column("score"));
    let (name, boards) = (table.name.clone(), run.boards.clone());
    // The sinks that the lane makes one after the other meet the same outage.
    let outage = Outage::default();
    let kept = kept(run).map(|tables| tables.of(&table.name));
    Arc::new(move || {
        if let Some(table) = &kept {
            return Ok(Box::new(MemorySink::new(table.clone())));
        }
        let account = memory.account(Use::Sink);
        let sink: Box<dyn Sink> = match &kind {
            SinkKind::Redis(_) | SinkKind::Kafka(_) if inside => Box::new(MemorySink::forgetful()),
            SinkKind::Redis(options) => Box::new(RedisSink::new(options.clone()).accounted(account).in_outage(outage.clone())),
            SinkKind::Files(options) => Box::new(FilesSink::new(options.clone()).accounted(account)),
            SinkKind::Http(options) => {
                let sink = HttpSink::new(options.clone(), &outbox.folder).copied_to(outbox.copies.clone());
                Box::new(sink.accounted(account).in_outage(outage.clone()))
            }
            SinkKind::Kafka(options) => {
                let sink = KafkaSink::new(options.clone()).accounted(account);
                Box::new(match options.registry() {
                    Some(registry) => sink.with_registry(Arc::new(HttpRegistry::new(registry)?)),
                    None => sink,
                })
            }
            SinkKind::Print => Box::new(PrintSink::default()),
        };
        Ok(match watched {
            Some((member, score)) => Box::new(Watched::new(sink, boards.clone(), &name, member, score)),
            None => sink,
        })
    })
}
