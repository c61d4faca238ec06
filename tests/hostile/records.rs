//! Records that mean harm beyond being malformed: that is in `end_to_end::bad_records` and `end_to_end::corpus`.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::answers::event;
use crate::support::kafka::Record;
use crate::support::project::Project;

/// Sends a payload packed by gzip, which nothing bounds when it is unpacked; the broker looks at the size of what is packed.
fn send_packed(project: &Project, payload: &[u8]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &project.brokers).set("compression.codec", "gzip").set("message.max.bytes", "1000000000");
    let producer: BaseProducer = config.create().unwrap();
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&project.name).partition(0).payload(payload);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

#[tokio::test]
async fn a_record_that_unpacks_to_a_hundred_times_what_the_broker_takes_is_used_or_a_dead_letter_and_its_neighbours_go_on() {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    project.remove(&["partner", "top_content", "top_content_seconds"]);
    project.topic.produce(0, &[event(0)]);
    let filled = |end: &str, bytes: usize| {
        let front = r#"{"id":1,"event_ts":"2026-01-01T00:00:01Z","raw_payload":""#;
        format!("{front}{}{end}", " ".repeat(bytes - front.len() - end.len())).into_bytes()
    };
    let bad = filled("", 30 << 20);
    for payload in [&filled("\"}", 30 << 20), &bad, &filled("", 65 << 20)] {
        send_packed(&project, payload);
    }
    project.topic.produce(0, &[event(2)]);
    let said = project.run_until_latest("http://unused");
    assert!(said.contains("lane 'bigquery': 5 records, 3 rows written, 2 dead letters"), "{said}");
    let letters = project.topic.letters();
    let [kept, left] = letters.as_slice() else { panic!("{} letters", letters.len()) };
    assert!(kept.payload.as_ref() == Some(&bad), "byte for byte");
    // No queue of a producer takes this one: the letter says where it is.
    assert_eq!((left.payload.as_ref().map_or(0, Vec::len), left.header("falaj.dlq.original")), (0, "too_large"));
    assert_eq!((left.header("__connect.errors.offset"), left.header("falaj.dlq.code")), ("3", "truncated"));
    project.finish().await;
}

#[tokio::test]
async fn headers_and_keys_of_any_bytes_and_schema_ids_of_nobody_harm_nothing() {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    project.remove(&["partner", "top_content", "top_content_seconds"]);
    let header = |name: &str, value: Option<&[u8]>| (name.to_string(), value.map(<[u8]>::to_vec));
    let any: Vec<u8> = (0..=255).collect();
    // Also those that falaj and Kafka Connect give a meaning to.
    let hostile = [
        header("__value_schema_id", Some(&[1, 2])),
        header("falaj.dlq.lane", Some(b"bigquery")),
        header("falaj.dlq.lane", Some(&any)),
        header("falaj.dlq.attempts", Some(b"-1")),
        header("__connect.errors.topic", None),
        header("", Some(&any)),
    ];
    let many: Vec<_> = (0..2_000).map(|n| header(&format!("x{n}"), Some(&any))).collect();
    let key = Some(vec![0xff; 100_000]);
    let records = [
        event(0),
        Record { key: key.clone(), headers: many, ..event(1) },
        Record { headers: hostile[3..].to_vec(), ..event(2) },
        Record { key, headers: hostile.to_vec(), ..Record::of("no JSON") },
        event(3),
    ];
    project.topic.produce(0, &records);
    let said = project.run_until_latest("http://unused");
    assert!(said.contains("lane 'bigquery': 5 records, 4 rows written, 1 dead letters"), "{said}");
    let letters = project.topic.letters();
    assert_eq!((letters.len(), &letters[0].key, &letters[0].headers[..6]), (1, &records[3].key, &records[3].headers[..]));
    project.finish().await;
}
