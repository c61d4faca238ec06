//! How many events one core decodes, as JSON and as Avro with the same values: `cargo run --release --example decode_speed [COLUMN,…]`.
//!
//! The events are made before the clock starts. Each figure is the best of some rounds over the same batches, JSON and Avro in turn.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use falaj::batch::Payloads;
use falaj::decode::Decoder;
use falaj::decode::framed::FramedDecoder;
use falaj::decode::json::JsonDecoder;
use falaj::error;
use falaj::registry::schemas::Schemas;
use falaj::registry::{self, Registry, SchemaType, Version};
use tokio::runtime::Runtime;

const BATCHES: usize = 16;
const BATCH_EVENTS: usize = 16_384;
const ROUNDS: usize = 10;

/// The schema that the Avro events are written with.
const AVRO: &str = r#"{"type":"record","name":"Engagement","fields":[
    {"name":"id","type":"long"},{"name":"content_id","type":"string"},{"name":"user_id","type":"string"},
    {"name":"event_type","type":"string"},{"name":"event_ts","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"duration_ms","type":["null","long"]},{"name":"device","type":"string"},{"name":"raw_payload","type":"string"}]}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let (json, avro): (Vec<Payloads>, Vec<Payloads>) = (0..BATCHES).map(batch).unzip();
    let runtime = Runtime::new()?;
    for (format, batches) in [("json", &json), ("avro", &avro)] {
        println!(
            "{} events of {} bytes as {format} on one core",
            BATCHES * BATCH_EVENTS,
            bytes(batches) / (BATCHES * BATCH_EVENTS)
        );
    }
    let chosen = std::env::args().nth(1);
    let all = "id,content_id,user_id,event_type,event_ts,duration_ms,device,raw_payload";
    for columns in chosen.as_deref().map_or_else(|| vec![all, "content_id,event_ts", ""], |columns| vec![columns]) {
        let schema = Arc::new(Schema::new(columns.split(',').filter(|name| !name.is_empty()).map(field).collect::<Vec<_>>()));
        let schemas = Arc::new(Schemas::new(Arc::new(One), runtime.handle().clone(), "engagement-value".into()));
        let mut of_json = JsonDecoder::new(Arc::clone(&schema))?;
        let mut of_avro = FramedDecoder::new(schema, SchemaType::Avro, schemas)?;
        let mut best = [f64::MAX; 2];
        for _ in 0..ROUNDS {
            best[0] = best[0].min(seconds(&mut of_json, &json)?);
            best[1] = best[1].min(seconds(&mut of_avro, &avro)?);
        }
        for ((format, batches), best) in [("json", &json), ("avro", &avro)].into_iter().zip(best) {
            let rate = (BATCHES * BATCH_EVENTS) as f64 / best;
            println!("{format}  {:>6.2} M events/s  {:>5.2} GB/s  {columns}", rate / 1e6, bytes(batches) as f64 / best / 1e9);
        }
        println!("avro is {:.2} times as fast", best[0] / best[1]);
    }
    Ok(())
}

fn bytes(batches: &[Payloads]) -> usize {
    batches.iter().map(|batch| batch.bytes.len()).sum()
}

/// How long one round over the batches takes.
fn seconds(decoder: &mut dyn Decoder, batches: &[Payloads]) -> Result<f64, Box<dyn Error>> {
    let fresh = batches.to_vec();
    let start = Instant::now();
    for batch in fresh {
        decoder.prepare(&batch)?;
        let decoded = black_box(decoder.decode(batch)?);
        assert!(decoded.dead.is_empty(), "{:?}", decoded.dead.first());
    }
    Ok(start.elapsed().as_secs_f64())
}

/// A registry of one schema, with the id 1.
struct One;

#[async_trait]
impl Registry for One {
    async fn fetch(&self, _: u32) -> error::Result<Option<registry::Schema>> {
        Ok(Some(registry::Schema { schema_type: SchemaType::Avro, text: AVRO.into(), references: vec![] }))
    }

    async fn names(&self, _: u32) -> error::Result<Vec<(String, i32)>> {
        Ok(vec![])
    }

    async fn latest(&self, _: &str) -> error::Result<Option<Version>> {
        Ok(None)
    }

    async fn version(&self, _: &str, _: i32) -> error::Result<Option<Version>> {
        Ok(None)
    }

    async fn register(&self, _: &str, _: &registry::Schema) -> error::Result<u32> {
        Ok(1)
    }

    async fn incompatible(&self, _: &str, _: &registry::Schema) -> error::Result<Option<String>> {
        Ok(None)
    }
}

fn field(name: &str) -> Field {
    let data_type = match name {
        "id" | "duration_ms" => DataType::Int64,
        "event_ts" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        _ => DataType::Utf8View,
    };
    Field::new(name, data_type, true)
}

/// A number as Avro writes it.
fn long(value: i64, bytes: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn text(value: &str, bytes: &mut Vec<u8>) {
    long(value.len() as i64, bytes);
    bytes.extend_from_slice(value.as_bytes());
}

/// Events some milliseconds apart whose fields vary like real ones: as JSON, and the same as Avro.
fn batch(number: usize) -> (Payloads, Payloads) {
    let (mut payloads, mut avro) = (Payloads::default(), Payloads::default());
    for index in 0..BATCH_EVENTS {
        let id = number * BATCH_EVENTS + index;
        // Any odd multiplier scatters well enough.
        let noise = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (second, milli) = (id / 1000 % 60, id % 1000);
        let minute = id / 60_000 % 60;
        let duration = (!noise.is_multiple_of(20)).then_some(noise >> 20 & 0xf_ffff);
        let event_type = ["play", "pause", "finish", "click"][(noise >> 40) as usize % 4];
        let device = ["ios", "android", "web", "tv"][(noise >> 50) as usize % 4];
        let network = ["wifi", "4g", "5g"][(noise >> 45) as usize % 3];
        let (content, user) = (format!("c{:06}", noise >> 30 & 0x3fff), format!("u{:07}", noise >> 33 & 0xf_ffff));
        let raw = format!(r#"{{"session":"{noise:016x}{noise:016x}","app_version":"5.1.2","network":"{network}"}}"#);
        let duration_text = duration.map_or_else(|| "null".to_owned(), |duration| duration.to_string());
        let event = format!(
            r#"{{"id":{id},"content_id":"{content}","user_id":"{user}","event_type":"{event_type}","event_ts":"2026-11-23T10:{minute:02}:{second:02}.{milli:03}Z","duration_ms":{duration_text},"device":"{device}","raw_payload":{raw}}}"#,
        );
        let mut binary = vec![0, 0, 0, 0, 1];
        long(id as i64, &mut binary);
        [&content, &user, event_type].into_iter().for_each(|value| text(value, &mut binary));
        long(1_795_428_000_000 + ((minute * 60 + second) * 1000 + milli) as i64, &mut binary);
        long(i64::from(duration.is_some()), &mut binary);
        duration.into_iter().for_each(|duration| long(duration as i64, &mut binary));
        [device, &raw].into_iter().for_each(|value| text(value, &mut binary));
        avro.push(id as i64, Some(&binary));
        payloads.push(id as i64, Some(event.as_bytes()));
    }
    (payloads, avro)
}
