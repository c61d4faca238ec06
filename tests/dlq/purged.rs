//! Purges, and the letters of a folder.

use super::{Scene, event};

#[tokio::test]
async fn what_is_purged_is_gone_and_the_broker_deletes_what_nobody_needs() {
    let scene = Scene::new(1).await;
    scene.send(0, &["{".to_string(), "[]".to_string(), "{".to_string()]);
    scene.run();
    scene.send(0, &[event(1, 10, "web")]);
    scene.run();
    assert_eq!(scene.letters().len(), 5);
    assert!(scene.dlq(&["purge", "--code", "not_an_object"]).ends_with(": 1 letter purged\n"));
    // It stands behind one that stays.
    assert_eq!(scene.letters().len(), 5);
    assert!(!scene.dlq(&["list"]).contains("not_an_object"));
    assert!(scene.dlq(&["purge", "--stage", "decode"]).ends_with(": 2 letters purged\n"));
    let left: Vec<String> = scene.letters().iter().map(|letter| letter.header("falaj.dlq.stage").to_string()).collect();
    assert_eq!(left, ["sql", "sql"]);
    assert!(scene.dlq(&["purge", "--lane", "sums", "--offset", "0:3"]).ends_with(": 1 letter purged\n"));
    let listed = scene.dlq(&["list"]);
    assert!(listed.lines().count() == 2 && listed.contains("numbers"), "{listed}");
    assert!(scene.dlq(&["purge", "--all", "--since", "1h"]).ends_with(": 1 letter purged\n"));
    assert_eq!((scene.letters().len(), scene.dlq(&["list"]).as_str()), (0, "no letters\n"));
    // What comes later is a letter as before.
    scene.send(0, &["{".to_string()]);
    scene.run();
    assert!(scene.dlq(&["list"]).contains("decode.truncated"));
    scene.project.finish().await;
}

#[tokio::test]
async fn a_purge_deletes_nothing_that_a_letter_needs_which_was_written_twice() {
    let scene = Scene::new(1).await;
    scene.send(0, &["{".to_string(), "[]".to_string()]);
    scene.run();
    assert!(scene.dlq(&["purge", "--code", "truncated"]).ends_with(": 1 letter purged\n"));
    // The first is deleted by now; the mark is not. A new lineage writes both again.
    std::fs::remove_dir_all(scene.project.path("data")).unwrap();
    scene.run();
    assert_eq!(scene.letters().len(), 3);
    scene.dlq(&["purge", "--code", "no_such_code"]);
    let listed = scene.dlq(&["list"]);
    assert!(!listed.contains("truncated") && listed.contains(" 2 "), "{listed}");
    scene.project.finish().await;
}

#[tokio::test]
async fn letters_of_changes_lie_in_a_folder_and_can_be_read_and_purged() {
    let scene = Scene::new(1).await;
    let name = &scene.project.name;
    scene.project.write(
        "changes",
        &format!("CREATE UNBOUNDED EXTERNAL TABLE changes (id BIGINT) STORED AS POSTGRES LOCATION '{name}.t' OPTIONS ('url' '${{env:DATABASE_URL}}');"),
    );
    let folder = scene.project.path(&format!("data/run/dead_letters/{name}.t/changes.dlq"));
    std::fs::create_dir_all(&folder).unwrap();
    let line = |offset| {
        format!(
            r#"{{"topic":"{name}.t","partition":0,"offset":{offset},"lane":"changes.dlq","stage":"schema","code":"out_of_range","message":"column 'id' cannot hold 1e99","timestamp_ms":1}}"#
        )
    };
    std::fs::write(folder.join("a-00000000000000000001.jsonl"), format!("{}\n{}\n", line(3), line(4))).unwrap();
    let listed = scene.dlq(&["list"]);
    assert!(listed.contains("schema.out_of_range") && listed.contains("1970-01-01"), "{listed}");
    assert!(scene.dlq(&["show", "--offset", "0:4"]).contains("its source keeps none"));
    let replayed = scene.dlq(&["replay", "--all"]);
    assert!(replayed.contains(".t: 2 letters: dead letters of") && replayed.contains("mend the rows there"), "{replayed}");
    let output = scene.try_dlq(&["replay", "--source", "changes"], "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(scene.dlq(&["purge", "--source", "changes", "--offset", "0:3"]).ends_with(": 1 letter purged\n"));
    assert!(scene.dlq(&["list"]).contains("0:4 column 'id'"));
    scene.project.finish().await;
}
