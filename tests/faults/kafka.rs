//! The log: its broker gone in mid-stream, what was not read yet gone, the topic gone.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{World, assert_said};
use crate::end_to_end::found;
use crate::support::project::{lane, wait_until};
use crate::support::proxy::Proxy;

const EVENTS: usize = 20_000;
/// How long the broker is away: longer than every time-out that a client has by itself.
const AWAY: Duration = Duration::from_secs(60);
const LANES: [&str; 3] = ["bigquery", "top_content", "top_content_seconds"];

async fn all_have_read(page: &str, records: usize) {
    for name in LANES {
        let reached = async || lane(page, name).await["records"].as_u64() >= Some(records as u64);
        wait_until("all is read", reached).await;
    }
}

#[tokio::test]
async fn a_broker_that_is_gone_in_mid_stream_is_waited_for_and_nothing_is_lost() {
    let mut world = World::new(EVENTS).await;
    let proxy = Proxy::of_kafka(&world.project.brokers);
    proxy.open();
    world.project.brokers = proxy.addr().to_string();
    world.produce(EVENTS / 4);
    let (mut falaj, page) = world.start();
    wait_until("it is in mid-stream", async || lane(&page, "bigquery").await["records"].as_u64() > Some(0)).await;
    proxy.cut();
    let began = Instant::now();
    world.produce(EVENTS / 4);
    falaj.wait_for_line(&["WARN", "waiting", &world.project.brokers]);
    // There is no state to wait for: nothing is to happen.
    while began.elapsed() < AWAY {
        for name in LANES {
            assert_eq!(lane(&page, name).await["state"], "running", "{name}");
        }
    }
    proxy.open();
    falaj.wait_for_line(&["INFO", "is read again, after"]);
    world.produce(EVENTS / 4);
    all_have_read(&page, EVENTS / 4 * 3).await;
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(said.matches("WARN").count(), 1, "one warning is enough:\n{said}");
    // After the log's end a board's time moves on with the clock; the last events take it back to theirs.
    world.produce(EVENTS / 4);
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn what_retention_took_before_it_was_read_is_named_span_by_span_and_stops_every_lane() {
    let mut world = World::new(EVENTS).await;
    world.produce(EVENTS / 2);
    world.run();
    let read: Vec<usize> = (0..4).map(|partition| world.log_end(partition)).collect();
    world.produce(EVENTS / 2);
    let mut until = TopicPartitionList::new();
    for (partition, more) in [(1, 7), (2, 40)] {
        let offset = Offset::Offset((read[partition as usize] + more) as i64);
        until.add_partition_offset(&world.project.name, partition, offset).unwrap();
    }
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &world.project.brokers).create().unwrap();
    admin.delete_records(&until, &AdminOptions::new()).await.unwrap();
    for _ in 0..2 {
        let said = world.run_fails();
        for name in LANES {
            let line = said.lines().find(|line| line.contains(&format!("lane '{name}' stopped")));
            let line = line.unwrap_or_else(|| panic!("'{name}' goes on:\n{said}"));
            let spans = [(1, 7), (2, 40)]
                .map(|(partition, more)| format!("partition {partition} [{}, {})", read[partition], read[partition] + more));
            assert_said(line, &[&world.project.name, &spans.join(", "), "raise the topic's retention"]);
        }
    }
    // What was read of the other partitions before may be written, and nothing of these.
    let found = found::enriched(&world.project.path("data/bigquery_output"));
    for (index, (partition, event)) in world.events.iter().enumerate() {
        let (is_there, was_read) = (found.contains_key(&(event.id as i64)), index < EVENTS / 2);
        let may_differ = !was_read && [0, 3].contains(partition);
        assert!(is_there == was_read || may_differ, "event {index} of partition {partition}: there {is_there}");
    }

    // Told to go on, it has all but these, says so, and says it once.
    world.project.replace("sources", "'start' 'earliest'", "'start' 'earliest', 'on_lost' 'go_on'");
    let said = world.project.run_until_latest("http://unused");
    let gone = |partition: i32, more: usize| {
        format!("partition {partition} [{}, {})", read[partition as usize], read[partition as usize] + more)
    };
    assert_said(&said, &[&world.project.name, &gone(1, 7), &gone(2, 40), "it goes on without them"]);
    let found = found::enriched(&world.project.path("data/bigquery_output"));
    let mut seen = [0; 4];
    for (partition, event) in &world.events {
        let offset = seen[*partition as usize];
        seen[*partition as usize] += 1;
        let more = [0, 7, 40, 0][*partition as usize];
        let is_gone = (read[*partition as usize]..read[*partition as usize] + more).contains(&offset);
        assert_ne!(found.contains_key(&(event.id as i64)), is_gone, "partition {partition}, offset {offset}");
    }
    assert!(!world.project.run_until_latest("http://unused").contains("no longer has"));
    world.project.finish().await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_stops_every_lane_and_what_was_written_stays() {
    let mut world = World::new(EVENTS).await;
    world.produce(EVENTS / 2);
    let (falaj, page) = world.start();
    all_have_read(&page, EVENTS / 2).await;
    world.project.topic.delete().await;
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(1), "{said}");
    for name in LANES {
        assert_said(&said, &[&format!("lane '{name}' stopped")]);
    }
    assert_said(&said, &["was deleted at", "what was not read yet is gone"]);
    assert_eq!(found::enriched(&world.project.path("data/bigquery_output")).len(), EVENTS / 2);
    world.project.finish().await;
}
