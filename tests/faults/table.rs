//! A table's folder that cannot be exchanged for another.

use std::fs;

use super::checkpoint::Mounted;
use super::{World, assert_said};

const EVENTS: usize = 4_000;

#[tokio::test]
async fn a_table_that_is_a_mount_of_its_own_cannot_be_replaced_and_that_is_said_at_the_start() {
    let mut world = World::new(EVENTS).await;
    world.project.replace("sinks", "'100ms'", "'100ms', 'on_new_lineage' 'replace'");
    let output = world.project.path("data/bigquery_output");
    fs::create_dir_all(&output).unwrap();
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], &output) else { return };
    world.produce(EVENTS);
    world.run();
    fs::remove_dir_all(world.project.path("data/run")).unwrap();
    let (status, said) =
        super::Falaj::start(&mut world.project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
    assert_eq!(status.code(), Some(78), "{said}");
    assert_said(
        &said,
        &["the new result is to take the place of ", "a file system is mounted there, so give LOCATION a folder below it"],
    );
    drop(disk);
    world.project.finish().await;
}

#[tokio::test]
async fn a_full_disk_of_a_table_stops_its_lane_alone_and_with_room_again_nothing_is_lost() {
    let mut world = World::new(EVENTS).await;
    let output = world.project.path("data/bigquery_output");
    fs::create_dir_all(&output).unwrap();
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=100k", "tmpfs"], &output) else { return };
    world.produce(EVENTS);
    let said = world.run_fails();
    assert_said(&said, &["lane 'bigquery' stopped", "make room there, then start the lane again: nothing is lost"]);
    assert!(!said.contains("lane 'top_content' stopped"), "{said}");
    disk.remount("size=64m");
    world.is_exact().await;
    drop(disk);
    world.project.finish().await;
}
