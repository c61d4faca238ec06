//! How many events one core decodes, as JSON, Avro and Protobuf with the same values: `cargo run --release --example decode_speed [COLUMN,…]`.
//!
//! The events are made before the clock starts. Each figure is the best of some rounds over the same batches, each format in turn.

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
use falaj::registry::id::SchemaId;
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

/// And the Protobuf events.
const PROTOBUF: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
    message Engagement {
        int64 id = 1; string content_id = 2; string user_id = 3; string event_type = 4; google.protobuf.Timestamp event_ts = 5;
        optional int64 duration_ms = 6; string device = 7; string raw_payload = 8;
    }"#;

const FORMATS: [&str; 3] = ["json", "avro", "protobuf"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut batches: [Vec<Payloads>; 3] = Default::default();
    for number in 0..BATCHES {
        batches.iter_mut().zip(batch(number)).for_each(|(batches, batch)| batches.push(batch));
    }
    let runtime = Runtime::new()?;
    for (format, batches) in FORMATS.iter().zip(&batches) {
        let events = BATCHES * BATCH_EVENTS;
        println!("{events} events of {} bytes as {format} on one core", bytes(batches) / events);
    }
    let chosen = std::env::args().nth(1);
    let all = "id,content_id,user_id,event_type,event_ts,duration_ms,device,raw_payload";
    for columns in chosen.as_deref().map_or_else(|| vec![all, "content_id,event_ts", ""], |columns| vec![columns]) {
        let schema = Arc::new(Schema::new(columns.split(',').filter(|name| !name.is_empty()).map(field).collect::<Vec<_>>()));
        let framed = |schema_type, text| {
            let schemas = Schemas::new(Arc::new(One(schema_type, text)), runtime.handle().clone(), "engagement-value".into());
            FramedDecoder::new(Arc::clone(&schema), schema_type, Arc::new(schemas), 4)
        };
        let mut json = JsonDecoder::new(Arc::clone(&schema))?;
        let (mut avro, mut protobuf) = (framed(SchemaType::Avro, AVRO)?, framed(SchemaType::Protobuf, PROTOBUF)?);
        let mut best = [f64::MAX; 3];
        for _ in 0..ROUNDS {
            let decoders: [&mut dyn Decoder; 3] = [&mut json, &mut avro, &mut protobuf];
            for ((decoder, batches), best) in decoders.into_iter().zip(&batches).zip(&mut best) {
                *best = best.min(seconds(decoder, batches)?);
            }
        }
        for ((format, batches), seconds) in FORMATS.iter().zip(&batches).zip(best) {
            let rate = (BATCHES * BATCH_EVENTS) as f64 / seconds / 1e6;
            let (volume, times) = (bytes(batches) as f64 / seconds / 1e9, best[0] / seconds);
            println!("{format:<8}  {rate:>6.2} M events/s  {volume:>5.2} GB/s  {times:.2} x json  {columns}");
        }
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
struct One(SchemaType, &'static str);

#[async_trait]
impl Registry for One {
    async fn fetch(&self, _: SchemaId) -> error::Result<Option<registry::Schema>> {
        Ok(Some(registry::Schema { schema_type: self.0, text: self.1.into(), references: vec![] }))
    }

    async fn names(&self, _: SchemaId) -> error::Result<Vec<(String, i32)>> {
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

fn varint(mut rest: u64, bytes: &mut Vec<u8>) {
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// A number as Avro writes it.
fn long(value: i64, bytes: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)) as u64, bytes);
}

fn text(value: &str, bytes: &mut Vec<u8>) {
    long(value.len() as i64, bytes);
    bytes.extend_from_slice(value.as_bytes());
}

/// A field of a message: a number, or bytes.
fn number(field: u64, value: u64, bytes: &mut Vec<u8>) {
    varint(field << 3, bytes);
    varint(value, bytes);
}

fn part(field: u64, value: &[u8], bytes: &mut Vec<u8>) {
    varint(field << 3 | 2, bytes);
    varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

/// Events some milliseconds apart whose fields vary like real ones: the same in each format.
fn batch(number_of: usize) -> [Payloads; 3] {
    let [mut payloads, mut avro, mut protobuf] = <[Payloads; 3]>::default();
    for index in 0..BATCH_EVENTS {
        let id = number_of * BATCH_EVENTS + index;
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
        let seconds = 1_795_428_000 + minute * 60 + second;
        long((seconds * 1000 + milli) as i64, &mut binary);
        long(i64::from(duration.is_some()), &mut binary);
        duration.into_iter().for_each(|duration| long(duration as i64, &mut binary));
        [device, &raw].into_iter().for_each(|value| text(value, &mut binary));
        avro.push(id as i64, Some(&binary));
        let mut message = vec![0, 0, 0, 0, 1, 0];
        number(1, id as u64, &mut message);
        [(2, &content), (3, &user)].into_iter().for_each(|(field, value)| part(field, value.as_bytes(), &mut message));
        part(4, event_type.as_bytes(), &mut message);
        let mut time = Vec::new();
        number(1, seconds as u64, &mut time);
        number(2, milli as u64 * 1_000_000, &mut time);
        part(5, &time, &mut message);
        duration.into_iter().for_each(|duration| number(6, duration, &mut message));
        part(7, device.as_bytes(), &mut message);
        part(8, raw.as_bytes(), &mut message);
        protobuf.push(id as i64, Some(&message));
        payloads.push(id as i64, Some(event.as_bytes()));
    }
    [payloads, avro, protobuf]
}
