//! A source of any kind, opened, and what makes its decoders.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;

use super::{QUEUE_PARTS, Run, World};
use crate::decode::Decoder;
use crate::decode::debezium::DebeziumDecoder;
use crate::decode::framed::FramedDecoder;
use crate::decode::json::JsonDecoder;
use crate::decode::pgoutput::debezium::Origin;
use crate::decode::pgoutput::{Changes, PgoutputDecoder};
use crate::error::Result;
use crate::lane::letters::{self};
use crate::pgoutput::Relations;
use crate::registry::http::HttpRegistry;
use crate::registry::schemas::Schemas;
use crate::settings::Settings;
use crate::source::kafka::{Format, KafkaOptions, KafkaSource};
use crate::source::log::MakeDecoder;
use crate::source::memory::MemorySource;
use crate::source::postgres::{Capture, PostgresOptions, PostgresSource};
use crate::source::watermark::WatermarkOptions;
use crate::source::{Keeper, Source, Start};
use crate::table::TableDef;

/// What lies before it is at hand, undecoded.
const CAPTURED_LOG_BYTES: usize = 8 << 20;

/// Other lanes wait for what a lane over changes writes, and rest themselves.
const CAPTURED_LINGER_PARTS: u32 = 10;

/// What the dead letters of changes have passed is not kept by Postgres any longer, and read again after a start.
const CAPTURED_INTERVAL: Duration = Duration::from_secs(1);

/// A source of any kind, and what its kind decides.
pub(super) struct Opened {
    pub(super) source: Arc<dyn Source>,
    pub(super) make_decoder: MakeDecoder,
    pub(super) watermark: WatermarkOptions,
    pub(super) start: Start,
    /// The most that its log holds, whatever the settings say.
    pub(super) log_bytes_max: usize,
    /// What each reader holds by itself.
    pub(super) reader_bytes: usize,
    /// Its lanes rest for this part of what the settings say.
    pub(super) linger_parts: u32,
    /// How often the positions of its dead letters' lane are worth a record.
    pub(super) letters_interval: Duration,
    /// Where it comes from Kafka.
    pub(super) kafka: Option<KafkaOptions>,
}

impl Opened {
    /// `readers` is how many of its readers there are at the same time, as a rule.
    pub(super) fn new(run: &Run, def: &TableDef, schema: SchemaRef, captured: &Captured, readers: usize) -> Result<Self> {
        if def.stored_as == "POSTGRES" {
            let options = PostgresOptions::from_table(def)?;
            let changes = if options.all_changes { Changes::All } else { Changes::Inserts };
            let (source, relations): (Arc<dyn Source>, Relations) = match (&run.world, captured.source(&def.name)) {
                (World::Real, Some(source)) => {
                    let relations = source.relations();
                    (Arc::new(source), relations)
                }
                // Nothing changes there.
                _ => (Arc::new(MemorySource::new(&def.location, 1, usize::MAX)), Relations::default()),
            };
            let table = options.location();
            let origin = Origin { slot: options.slot().to_string(), database: options.database().to_string() };
            let clock = run.clock.clone();
            let make_decoder: MakeDecoder = Arc::new(move || {
                let (schema, relations, clock) = (Arc::clone(&schema), Arc::clone(&relations), clock.clone());
                Ok(Box::new(PgoutputDecoder::new(schema, changes, relations, &table, &origin, clock)?))
            });
            let (watermark, start, letters_interval) = (options.watermark, Start::Earliest, CAPTURED_INTERVAL);
            return Ok(Self {
                source,
                make_decoder,
                watermark,
                start,
                log_bytes_max: CAPTURED_LOG_BYTES,
                reader_bytes: 0,
                linger_parts: CAPTURED_LINGER_PARTS,
                letters_interval,
                kafka: None,
            });
        }
        let queue_bytes = run.memory.at_most(usize::MAX, QUEUE_PARTS) / readers.max(1);
        let options = KafkaOptions::from_table(def)?.with_queue_at_most(queue_bytes);
        let source: Arc<dyn Source> = match &run.world {
            World::Real => Arc::new(KafkaSource::new(options.clone())),
            World::Inside(inside) => Arc::new(inside.source.clone()),
        };
        let make_decoder = match &run.world {
            World::Real => make_decoder(&options.format, schema).map_err(|error| error.at(&def.place))?,
            // What stands for a topic has no registry beside it.
            World::Inside(_) => match &options.format {
                Format::Framed(..) => make_decoder(&Format::Json, schema)?,
                format => make_decoder(format, schema)?,
            },
        };
        let reader_bytes = if matches!(run.world, World::Real) { options.queue_bytes() * readers } else { 0 };
        let (watermark, start, letters_interval) = (options.watermark.clone(), options.start, letters::COMMIT_INTERVAL);
        Ok(Self {
            source,
            make_decoder,
            watermark,
            start,
            log_bytes_max: usize::MAX,
            reader_bytes,
            linger_parts: 1,
            letters_interval,
            kafka: Some(options),
        })
    }
}

/// What makes the decoders of a topic.
fn make_decoder(format: &Format, schema: SchemaRef) -> Result<MakeDecoder> {
    Ok(match format {
        Format::Json => Arc::new(move || Ok(Box::new(JsonDecoder::new(Arc::clone(&schema))?) as Box<dyn Decoder>)),
        &Format::Debezium { all_changes, time_unit } => Arc::new(move || {
            let changes = if all_changes { Changes::All } else { Changes::Inserts };
            Ok(Box::new(DebeziumDecoder::new(Arc::clone(&schema), changes, time_unit)?))
        }),
        Format::Framed(schema_type, registry) => {
            let (schema_type, subject, id_bytes) = (*schema_type, registry.subject.clone(), registry.id_bytes);
            let registry = Arc::new(HttpRegistry::new(registry)?);
            // Decoding threads ask, and the answers are waited for on this runtime.
            let schemas = Arc::new(Schemas::new(registry, Handle::current(), subject));
            Arc::new(move || {
                let schemas = Arc::clone(&schemas);
                Ok(Box::new(FramedDecoder::new(Arc::clone(&schema), schema_type, schemas, id_bytes)?))
            })
        }
    })
}

/// The captures of all Postgres tables whose changes are read.
#[derive(Default)]
pub(super) struct Captured {
    captures: Vec<(Arc<Capture>, Vec<String>)>,
}

impl Captured {
    /// One for each slot. `tables` are those that lanes read, each with the lanes that read it.
    pub(super) fn new(tables: Vec<(TableDef, Vec<String>)>, settings: &Settings, run: &Run) -> Result<Self> {
        let folder = &settings.spool();
        let mut slots: Vec<Vec<(PostgresOptions, Vec<String>)>> = Vec::new();
        for (def, lanes) in tables {
            let options = PostgresOptions::from_table(&def)?;
            match slots.iter_mut().find(|slot| slot.first().is_some_and(|(first, _)| first.same_slot(&options))) {
                Some(slot) => slot.push((options, lanes)),
                None => slots.push(vec![(options, lanes)]),
            }
        }
        let capture = |tables: Vec<(PostgresOptions, Vec<String>)>| {
            let names = tables.iter().map(|(options, _)| options.name().to_string()).collect();
            let slot = tables.first().map_or("", |(options, _)| options.slot()).to_string();
            let (share, status) = (run.memory.share("changes of", &slot), run.status.capture(&slot));
            (Arc::new(Capture::new(tables, folder, settings.spool_bytes_max, &share, status)), names)
        };
        Ok(Self { captures: slots.into_iter().map(capture).collect() })
    }

    /// What must keep their marks.
    pub(super) fn keepers(&self) -> impl Iterator<Item = Arc<dyn Keeper>> {
        self.captures.iter().map(|(capture, _)| Arc::clone(capture) as Arc<dyn Keeper>)
    }

    fn source(&self, table: &str) -> Option<PostgresSource> {
        self.captures.iter().find_map(|(capture, names)| {
            let index = names.iter().position(|name| name == table)?;
            Some(capture.source(index))
        })
    }
}
