//! Replays.

#[cfg(feature = "failpoints")]
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use super::{Scene, event, once};
use crate::support::kafka::{self, Record};
use crate::support::project::{lane, wait_until};

/// The end of a payload that was cut off, and a number in place of a text.
const MEND: &str = r#"CASE code WHEN 'truncated' THEN payload || '}' ELSE replace(payload, '"one"', '1000') END"#;

/// Events 0 to 29 in two partitions, by the second; those from 20 on broken in two ways. The last ten seconds are open still.
fn send_broken(scene: &Scene) {
    for partition in 0..2 {
        let events = (0..30).filter(|id| id % 2 == partition).map(|id| {
            let good = event(id, 30 + id, "7");
            match id {
                0..20 => good,
                _ if id % 3 == 0 => good.replace("1000", r#""one""#),
                _ => good[..good.len() - 1].to_string(),
            }
        });
        // So that the watermark stands before them: the least over both partitions.
        scene.send(partition as i32, &events.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_could_not_be_decoded_is_mended_and_counts_in_every_lane_as_if_it_had_been_good() {
    let scene = Scene::new(2).await;
    send_broken(&scene);
    scene.run();
    assert_eq!(scene.letters().len(), 10);
    assert_eq!(scene.ids("rows"), once(0..20));
    let listed = scene.dlq(&["list"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    for (words, count) in
        [(["decode.truncated", "engagement_events.dlq"], " 7 "), (["schema.type_mismatch", "engagement_events.dlq"], " 3 ")]
    {
        let line =
            listed.lines().find(|line| words.iter().all(|word| line.contains(word))).unwrap_or_else(|| panic!("{listed}"));
        assert!(line.contains(count), "{line}");
    }
    let shown = scene.dlq(&["show", "--code", "type_mismatch", "--limit", "1"]);
    let caret = shown.lines().position(|line| line.contains('^')).unwrap_or_else(|| panic!("{shown}"));
    let (above, below) = (shown.lines().nth(caret - 1).unwrap(), shown.lines().nth(caret).unwrap());
    assert_eq!(below.find('^'), above.find("\"one\""), "{shown}");

    let dry = scene.dlq(&["replay", "--all", "--repair", MEND, "--dry-run"]);
    assert!(dry.contains("10 letters would be replayed") && dry.contains("\"duration_ms\":1000"), "{dry}");
    assert_eq!(scene.dlq(&["list"]), listed, "a dry run changes nothing");

    let done = scene.dlq(&["replay", "--all", "--repair", MEND]);
    assert!(done.ends_with(": 10 letters replayed\n"), "{done}");
    assert_eq!(scene.dlq(&["list"]), "no letters\n");
    assert!(scene.dlq(&["replay", "--all", "--repair", MEND]).ends_with(": 0 letters replayed\n"), "each goes once");
    // And what comes later closes the windows.
    (0..2).for_each(|partition| scene.send(partition, &[event(30 + partition as usize, 120, "7")]));
    let said = scene.run();
    assert_eq!((scene.ids("rows"), scene.ids("numbers")), (once(0..32), once(0..32)));
    let tens = |second: i64| (["00:00:40", "00:00:50", "00:01:00"][second as usize].to_string(), (10, second));
    let expected = |per_event: i64| (0..3).map(|n| (tens(n).0, (10, 10 * per_event))).collect();
    assert_eq!(scene.windows("tens", "duration_ms"), expected(1000));
    assert_eq!(scene.windows("sums", "devices"), expected(7));
    assert_eq!(scene.letters().len(), 10);
    // The records of the marks' transactions are no records of the source.
    for lane in ["rows", "numbers", "tens", "sums"] {
        assert!(said.contains(&format!("lane '{lane}': 12 records,")), "{said}");
    }
    scene.project.finish().await;
}

#[tokio::test]
async fn what_one_lane_could_not_use_is_replayed_for_that_lane_alone() {
    let scene = Scene::new(1).await;
    let headers = vec![("trace".to_string(), Some(vec![0, 159])), ("none".to_string(), None)];
    let bad = Record { key: Some(b"k".to_vec()), headers: headers.clone(), ..Record::of(event(5, 15, "web")) };
    scene.send(0, &(0..5).map(|id| event(id, 10, "7")).collect::<Vec<_>>());
    scene.project.topic.produce(0, &[bad]);
    scene.run();
    // A row of "numbers", and one of "sums"; the other lanes have used it.
    let mut files: Vec<_> = scene.letters().iter().map(|letter| letter.header("falaj.dlq.file").to_string()).collect();
    files.sort();
    assert_eq!(files, ["queries/numbers.sql", "queries/sums.sql"]);
    let mend = r#"replace(payload, '"web"', '"8"')"#;
    let rows = scene.dlq(&["replay", "--lane", "numbers", "--repair", mend]);
    assert!(rows.ends_with(": 1 letter replayed\n"), "{rows}");
    scene.run();
    assert_eq!((scene.ids("rows"), scene.ids("numbers")), (once(0..6), once(0..6)));

    // It fails once more, and is mended then.
    assert!(scene.dlq(&["replay", "--stage", "sql"]).ends_with(": 1 letter replayed\n"));
    scene.run();
    let shown = scene.dlq(&["show"]);
    assert!(shown.contains("replayed  once before, for the lane 'sums' only"), "{shown}");
    assert!(shown.contains("header    trace = 0x009f") && shown.contains("key       k"), "{shown}");
    assert!(scene.dlq(&["replay", "--all", "--repair", mend]).ends_with(": 1 letter replayed\n"));
    scene.send(0, &[event(6, 60, "7")]);
    let (falaj, page) = scene.project.run("http://127.0.0.1:1", &[]);
    for (name, filtered) in [("rows", 1), ("tens", 1), ("sums", 0), ("numbers", 1)] {
        let mut figures = serde_json::Value::Null;
        wait_until("two records are counted", async || {
            figures = lane(&page, name).await;
            figures["records"] == 2
        })
        .await;
        let sum = (&figures["used"], &figures["filtered"], &figures["late"], &figures["dead"], &figures["skipped"]);
        let used = 2 - filtered;
        assert_eq!(sum, (&json!(used), &json!(filtered), &json!(0), &json!(0), &json!(0)), "{name}: {figures}");
    }
    falaj.terminate();
    falaj.end();

    assert_eq!((scene.ids("rows"), scene.ids("numbers")), (once(0..7), once(0..7)));
    assert_eq!(scene.windows("tens", "duration_ms"), [("00:00:20".to_string(), (6, 6000))].into());
    assert_eq!(scene.windows("sums", "devices"), [("00:00:20".to_string(), (6, 43))].into());

    let mut replayed = Vec::new();
    scene.project.topic.read(&scene.project.name, |message| replayed.push(Record::read(message)));
    let replayed: Vec<_> = replayed.iter().filter(|record| record.headers.len() > 2).collect();
    let says =
        |record: &Record| (record.header("falaj.dlq.replay_attempt").to_string(), record.header("falaj.dlq.lane").to_string());
    assert_eq!(
        replayed.iter().map(|record| says(record)).collect::<Vec<_>>(),
        [("1", "numbers"), ("1", "sums"), ("2", "sums")].map(|(count, lane)| (count.to_string(), lane.to_string()))
    );
    for record in replayed {
        assert_eq!((record.key.as_deref(), &record.headers[..2]), (Some(&b"k"[..]), &headers[..]));
        assert_eq!(record.headers.len(), 4, "none of the letter's own: {record:?}");
    }
    scene.project.finish().await;
}

#[tokio::test]
async fn what_a_sink_could_not_take_is_mended_and_written_by_its_lane_alone() {
    let scene = Scene::new(1).await;
    let (topic, brokers) = (format!("{}-newest", scene.project.name), &scene.project.brokers);
    let sink = format!(
        "CREATE EXTERNAL TABLE newest (device VARCHAR, id BIGINT) STORED AS KAFKA LOCATION '{topic}' \
         OPTIONS ('brokers' '{brokers}', 'partitions' '1', 'key' 'device', 'emit' 'update');\n"
    );
    scene.project.write("newest", &format!("{sink}INSERT INTO newest SELECT NULLIF(device, '0'), id FROM engagement_events;"));
    scene.send(0, &[event(0, 10, "7"), event(1, 11, "0"), event(2, 12, "9")]);
    scene.run();
    let listed = scene.dlq(&["list"]);
    assert!(listed.contains("sink.null_key") && listed.lines().count() == 2, "{listed}");
    let mend = r#"replace(payload, '"device":"0"', '"device":"8"')"#;
    assert!(scene.dlq(&["replay", "--stage", "sink", "--repair", mend]).ends_with(": 1 letter replayed\n"));
    scene.run();
    let written = kafka::committed(brokers, &topic);
    let keys: Vec<_> = written.iter().map(|record| String::from_utf8(record.key.clone().unwrap()).unwrap()).collect();
    assert_eq!(keys, ["7", "9", "8"]);
    assert_eq!((scene.ids("rows"), scene.letters().len()), (once(0..3), 1));
    scene.project.finish().await;
}

#[tokio::test]
#[cfg(feature = "failpoints")]
async fn a_replay_that_dies_before_or_after_its_commit_replays_each_letter_once() {
    let scene = Scene::new(1).await;
    // More than one transaction.
    let broken: Vec<String> = (0..1200).map(|id| event(id, 10, "7").trim_end_matches('}').to_string()).collect();
    scene.send(0, &broken);
    scene.run();
    let args = ["replay", "--all", "--repair", "payload || '}'"];
    for (place, left) in [("dlq/replay.sent/1", 1200), ("dlq/replay.committed/1", 700), ("dlq/replay.sent/2", 200)] {
        let output = scene.try_dlq(&args, place);
        assert_eq!(output.status.signal(), Some(9), "{place}: {output:?}");
        let listed = scene.dlq(&["list", "--json"]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&listed).unwrap()["letters"], left, "{place}");
    }
    assert!(scene.dlq(&args).ends_with(": 200 letters replayed\n"));
    scene.run();
    assert_eq!(scene.ids("rows"), once(0..1200));
    scene.project.finish().await;
}

#[tokio::test]
async fn of_two_replays_at_once_one_gives_way_and_each_letter_goes_once() {
    let scene = Scene::new(1).await;
    let broken: Vec<String> = (0..3000).map(|id| event(id, 10, "7").trim_end_matches('}').to_string()).collect();
    scene.send(0, &broken);
    scene.run();
    let args = ["replay", "--all", "--repair", "payload || '}'"];
    for _ in 0..2 {
        let outputs = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| scene.try_dlq(&args, "")));
            both.map(|one| one.join().unwrap())
        });
        for output in outputs.iter().filter(|output| !output.status.success()) {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("run the command again for what is left: no letter is replayed twice"), "{said}");
        }
        assert!(outputs.iter().any(|output| output.status.success()), "{outputs:?}");
    }
    assert_eq!(scene.dlq(&["list"]), "no letters\n");
    scene.run();
    assert_eq!(scene.ids("rows"), once(0..3000));
    scene.project.finish().await;
}

#[tokio::test]
async fn what_lies_behind_somebody_else_s_open_transaction_is_waited_for() {
    let scene = Scene::new(1).await;
    let broken = |id| event(id, 10, "7").trim_end_matches('}').to_string();
    scene.send(0, &[broken(0)]);
    scene.run();
    // Nobody ends it but the broker, some seconds after this time.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &scene.project.brokers)
        .set("transactional.id", &scene.project.name)
        .set("transaction.timeout.ms", "3000")
        .create()
        .unwrap();
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).unwrap();
    producer.begin_transaction().unwrap();
    let dlq = format!("{}.dlq", scene.project.name);
    producer.send(BaseRecord::<(), str>::to(&dlq).payload("foreign")).map_err(|(error, _)| error).unwrap();
    producer.flush(wait).unwrap();
    scene.send(0, &[broken(1)]);
    scene.run();
    let listed = scene.dlq(&["list", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&listed).unwrap()["letters"], 1, "the second is hidden: {listed}");
    assert!(scene.dlq(&["replay", "--all", "--repair", "payload || '}'"]).ends_with(": 2 letters replayed\n"));
    scene.run();
    assert_eq!(scene.ids("rows"), once(0..2));
    scene.project.finish().await;
}

#[tokio::test]
async fn a_new_lineage_writes_the_same_letters_and_what_was_replayed_stays_so() {
    let scene = Scene::new(1).await;
    scene.send(0, &[event(0, 10, "7"), event(1, 11, "7").trim_end_matches('}').to_string()]);
    scene.run();
    let args = ["replay", "--all", "--repair", "payload || '}'"];
    assert!(scene.dlq(&args).ends_with(": 1 letter replayed\n"));
    std::fs::remove_dir_all(scene.project.path("data")).unwrap();
    scene.run();
    assert_eq!(scene.letters().len(), 2, "it was read, and written, again");
    assert_eq!(scene.dlq(&["list"]), "no letters\n");
    assert!(scene.dlq(&args).ends_with(": 0 letters replayed\n"));
    assert_eq!(scene.ids("rows"), once(0..2));
    scene.project.finish().await;
}

#[tokio::test]
async fn a_topic_of_letters_may_be_read_as_any_other() {
    let scene = Scene::new(1).await;
    scene.send(0, &[event(0, 10, "web"), event(1, 11, "7"), "{".to_string()]);
    scene.run();
    scene.dlq(&["replay", "--code", "truncated"]);
    let name = &scene.project.name;
    scene.project.remove(&["rows", "numbers", "tens", "sums"]);
    scene.project.replace("sources", &format!("LOCATION '{name}'"), &format!("LOCATION '{name}.dlq'"));
    scene.project.write(
        "failed",
        "CREATE EXTERNAL TABLE failed (id BIGINT) STORED AS JSON LOCATION 'data/failed/' OPTIONS ('roll.interval' '100ms');
         INSERT INTO failed SELECT id FROM engagement_events;",
    );
    let said = scene.run();
    // Two letters of lanes of its row, one that is no JSON there either, and a mark, which is passed over.
    assert_eq!(scene.ids("failed"), [(0, 2)].into());
    assert!(said.contains("lane 'failed': 4 records, 2 rows written, 1 dead letters"), "{said}");
    kafka::remove(&scene.project.brokers, &format!("{name}.dlq.dlq")).await;
    scene.project.finish().await;
}
