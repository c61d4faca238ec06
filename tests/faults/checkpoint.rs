//! The checkpoint's folder: its disk full, not to be written to, deleted under a running process, and its records damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{World, assert_said};
use crate::support::project::{lane, wait_until};

const EVENTS: usize = 8_000;

/// Something mounted for the time of a test. `None`, said on stderr, where this user may not mount.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn new(args: &[&str], at: &Path) -> Option<Self> {
        let mounted = mount(args, at);
        if !mounted {
            eprintln!("skipped: 'mount {} {}' is not for this user", args.join(" "), at.display());
        }
        mounted.then(|| Self(at.to_path_buf()))
    }

    pub(super) fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0));
    }
}

fn mount(args: &[&str], at: &Path) -> bool {
    let done = Command::new("mount").args(args).arg(at).output();
    done.is_ok_and(|done| done.status.success())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The last record of a lane.
fn last_record(world: &World, lane: &str) -> PathBuf {
    let folder = world.project.path(&format!("data/run/checkpoint/{lane}"));
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).max().unwrap()
}

#[tokio::test]
async fn a_full_disk_stops_every_lane_and_with_room_again_nothing_is_lost() {
    let mut world = World::new(EVENTS).await;
    let folder = world.project.path("data/run/checkpoint");
    fs::create_dir_all(&folder).unwrap();
    // Room for some records of each lane.
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=160k", "tmpfs"], &folder) else { return };
    world.produce(EVENTS / 2);
    let said = world.run_fails();
    assert_said(&said, &["could not be written", "make room on the disk, then start again", "lane 'top_content' stopped"]);
    // Still full: it stops again.
    assert_said(&world.run_fails(), &["make room on the disk, then start again"]);
    world.produce(EVENTS / 2);
    disk.remount("size=64m");
    world.is_exact().await;
    drop(disk);
    world.project.finish().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_stops_every_lane_and_with_the_right_to_it_again_nothing_is_lost() {
    let mut world = World::new(EVENTS).await;
    world.produce(EVENTS / 2);
    world.run();
    world.produce(EVENTS / 2);
    let folder = world.project.path("data/run/checkpoint");
    let path = folder.display().to_string();
    let Some(bound) = Mounted::new(&["--bind", &path], &folder) else { return };
    bound.remount("bind,ro");
    let advice = "could not be written; let this user write there, or SET falaj.checkpoint to another folder";
    assert_said(&world.run_fails(), &[advice]);
    drop(bound);
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn a_file_where_the_folder_must_be_is_said() {
    let mut world = World::new(EVENTS).await;
    world.produce(EVENTS);
    fs::create_dir_all(world.project.path("data")).unwrap();
    fs::write(world.project.path("data/run"), "").unwrap();
    assert_said(&world.run_fails(), &["the checkpoint data/run/checkpoint", "could not be"]);
    fs::remove_file(world.project.path("data/run")).unwrap();
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn a_folder_that_is_deleted_under_a_running_process_stops_it() {
    let mut world = World::new(EVENTS).await;
    world.project.replace("sinks", "'100ms'", "'100ms', 'on_new_lineage' 'replace'");
    let (falaj, page) = world.start();
    world.produce(EVENTS / 4);
    let read = Some(EVENTS as u64 / 4);
    for name in ["bigquery", "top_content", "top_content_seconds"] {
        wait_until("all is read", async || lane(&page, name).await["records"].as_u64() == read).await;
    }
    fs::remove_dir_all(world.project.path("data/run/checkpoint")).unwrap();
    world.produce(EVENTS / 4);
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_said(&said, &["was moved away or replaced while this process ran", "lane 'top_content' stopped"]);
    // Begun again, as the user wanted: nothing of the old process is left in the way.
    world.produce(EVENTS / 2);
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn a_damaged_record_is_named_and_with_the_right_one_put_back_the_lane_goes_on() {
    let mut world = World::new(EVENTS).await;
    world.produce(EVENTS / 2);
    world.run();
    for lane in ["bigquery", "top_content"] {
        let other = if lane == "bigquery" { "top_content" } else { "bigquery" };
        let path = last_record(&world, lane);
        let good = fs::read(&path).unwrap();
        let (name, foreign) = (path.file_name().unwrap().to_str().unwrap(), fs::read(last_record(&world, other)).unwrap());
        let mut flipped = good.clone();
        let at = flipped.iter().position(|byte| *byte == b'1').unwrap();
        flipped[at] ^= 2;
        for (bytes, says) in [
            (&good[..good.len() / 2], "is torn"),
            (&[], "is torn"),
            (&flipped, "was changed: its checksum does not fit"),
            (&foreign, "is foreign: it belongs to another lineage, lane or number"),
        ] {
            fs::write(&path, bytes).unwrap();
            let said = world.run_fails();
            let line = said.lines().find(|line| line.contains(&format!("lane '{lane}' stopped"))).unwrap_or_default();
            assert_said(line, &[name, says, "put back a copy of the folder"]);
        }
        fs::write(&path, good).unwrap();
    }
    let (lineage, good) = (world.project.path("data/run/checkpoint/lineage.json"), b"{\"lin");
    let whole = fs::read(&lineage).unwrap();
    fs::write(&lineage, good).unwrap();
    assert_said(&world.run_fails(), &["lineage.json is torn; put back a copy of the folder"]);
    fs::write(&lineage, whole).unwrap();

    // The record before the last: the intent of the commit.
    let path = last_record(&world, "bigquery");
    let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let before = path.with_file_name(format!("{:020}.json", number - 1));
    let good = fs::read(&before).unwrap();
    fs::remove_file(&before).unwrap();
    assert_said(&world.run_fails(), &[before.file_name().unwrap().to_str().unwrap(), "is missing", "put back a copy"]);
    fs::write(&before, good).unwrap();
    world.produce(EVENTS / 2);
    world.is_exact().await;
    world.project.finish().await;
}
