//! How many events one core decodes: `cargo run --release --example decode_speed [COLUMN,…]`.
//!
//! The events are made before the clock starts. Each figure is the best of some rounds over the same batches.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use falaj::batch::Payloads;
use falaj::decode::Decoder;
use falaj::decode::json::JsonDecoder;

const BATCHES: usize = 16;
const BATCH_EVENTS: usize = 16_384;
const ROUNDS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let batches: Vec<Payloads> = (0..BATCHES).map(batch).collect();
    let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
    println!("{} events of {} bytes on one core", BATCHES * BATCH_EVENTS, bytes / (BATCHES * BATCH_EVENTS));
    let chosen = std::env::args().nth(1);
    let all = "id,content_id,user_id,event_type,event_ts,duration_ms,device,raw_payload";
    for columns in chosen.as_deref().map_or_else(|| vec![all, "content_id,event_ts", ""], |columns| vec![columns]) {
        let schema = Arc::new(Schema::new(columns.split(',').filter(|name| !name.is_empty()).map(field).collect::<Vec<_>>()));
        let mut decoder = JsonDecoder::new(schema)?;
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let fresh = batches.clone();
            let start = Instant::now();
            for batch in fresh {
                black_box(decoder.decode(batch)?);
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        let rate = (BATCHES * BATCH_EVENTS) as f64 / best;
        println!("{:>6.2} M events/s  {:>5.2} GB/s  {columns}", rate / 1e6, bytes as f64 / best / 1e9);
    }
    Ok(())
}

fn field(name: &str) -> Field {
    let data_type = match name {
        "id" | "duration_ms" => DataType::Int64,
        "event_ts" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        _ => DataType::Utf8View,
    };
    Field::new(name, data_type, true)
}

/// Events some milliseconds apart whose fields vary like real ones.
fn batch(number: usize) -> Payloads {
    let mut payloads = Payloads::default();
    for index in 0..BATCH_EVENTS {
        let id = number * BATCH_EVENTS + index;
        // Any odd multiplier scatters well enough.
        let noise = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (second, milli) = (id / 1000 % 60, id % 1000);
        let minute = id / 60_000 % 60;
        let duration = if noise.is_multiple_of(20) { "null".to_owned() } else { (noise >> 20 & 0xf_ffff).to_string() };
        let event_type = ["play", "pause", "finish", "click"][(noise >> 40) as usize % 4];
        let device = ["ios", "android", "web", "tv"][(noise >> 50) as usize % 4];
        let network = ["wifi", "4g", "5g"][(noise >> 45) as usize % 3];
        let event = format!(
            r#"{{"id":{id},"content_id":"c{:06}","user_id":"u{:07}","event_type":"{event_type}","event_ts":"2026-11-23T10:{minute:02}:{second:02}.{milli:03}Z","duration_ms":{duration},"device":"{device}","raw_payload":{{"session":"{noise:016x}{noise:016x}","app_version":"5.1.2","network":"{network}"}}}}"#,
            noise >> 30 & 0x3fff,
            noise >> 33 & 0xf_ffff,
        );
        payloads.push(id as i64, Some(event.as_bytes()));
    }
    payloads
}
