//! In a cluster.

use super::World;
use super::servers::{Cluster, PASSWORD, Server, until};
use super::wrong::Table;
use crate::locked::keys::Keys;

/// The options of a table in the cluster of a node.
fn url(node: &Server) -> String {
    format!("'url' 'redis://127.0.0.1:{}', 'cluster' 'true'", node.port)
}

/// Moves all keys of a slot from one node to another, but leaves the slot under way; gives the target's id.
fn move_keys(from: &Server, to: &Server, slot: &str) -> String {
    let (source, target) = (from.ask(&["CLUSTER", "MYID"]), to.ask(&["CLUSTER", "MYID"]));
    assert_eq!(to.ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source]), "OK");
    assert_eq!(from.ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target]), "OK");
    until("all keys are moved", || {
        let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
        let port = to.port.to_string();
        for key in keys.lines().filter(|key| !key.is_empty()) {
            from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        }
        keys.is_empty()
    });
    target
}

#[tokio::test]
async fn a_master_that_dies_and_takes_writes_with_it_is_failed_over_and_the_board_is_right() {
    let mut cluster = Cluster::start(1, None);
    // It alone is named, so who is there when it is gone must have been learned from it.
    let mut world = World::new(|key| url(&cluster.nodes[cluster.master_of(key)])).await;
    let key = world.key.clone();
    let expected = world.produce();
    let mut falaj = world.start();
    until("the board is there", || cluster.board(&key) == expected);
    let master = cluster.master_of(&key);
    let replica = cluster.replica_of(master);
    cluster.nodes[master].leaves_behind(&cluster.nodes[replica], &key);
    let expected = world.produce();
    until("the master has what its replica has not", || cluster.board(&key) == expected);
    cluster.nodes[master].kill();
    world.produce();
    falaj.wait_for_line(&["WARN", "table 'top_content': the Redis cluster at 127.0.0.1:", "does not do it"]);
    cluster.nodes[replica].signal("CONT");
    falaj.wait_for_line(&["INFO", "table 'top_content'", "does it again, after"]);
    let expected = world.produce();
    until("the board is right again", || cluster.board(&key) == expected);
    assert_eq!(cluster.master_of(&key), replica);
    world.finish(falaj).await;
}

#[tokio::test]
async fn a_slot_that_moves_to_another_node_is_followed_while_it_is_written() {
    let cluster = Cluster::start(0, None);
    let mut world = World::new(|_| url(&cluster.nodes[0])).await;
    let key = world.key.clone();
    let expected = world.produce();
    let falaj = world.start();
    until("the board is there", || cluster.board(&key) == expected);
    let from = cluster.master_of(&key);
    let to = cluster.another_master(from);
    let slot = cluster.nodes[from].ask(&["CLUSTER", "KEYSLOT", &key]);
    world.produce();
    let target = move_keys(&cluster.nodes[from], &cluster.nodes[to], &slot);
    let expected = world.produce();
    until("the board is right at the other node, whose slot it is not yet", || cluster.board(&key) == expected);
    for node in [to, from, 3 - to - from] {
        assert_eq!(cluster.nodes[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]), "OK");
    }
    let expected = world.produce();
    until("the board is right where the slot is now", || cluster.board(&key) == expected);
    assert_eq!(cluster.master_of(&key), to);
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    world.project.finish().await;
}

#[tokio::test]
async fn a_cluster_is_written_with_tls_and_a_user() {
    let keys = Keys::make();
    let cluster = Cluster::start(0, Some(&keys));
    let url = format!("rediss://app:{PASSWORD}@{}", cluster.hosts("localhost"));
    let ca = keys.text("ca.pem");
    // Three boards, so that they are hardly all at one node; and hashes, which a tag holds together.
    for (location, key, kind) in [
        ("top", "top", "zset"),
        ("bottom", "bottom", "zset"),
        ("middle", "middle", "zset"),
        ("{users}:row", "{users}:row:a", "hash"),
    ] {
        let table = Table::new(location, kind, &[("url", &url), ("cluster", "true"), ("tls.ca", &ca)]);
        table.write().await.unwrap();
        let found: usize = cluster.nodes.iter().filter(|node| node.ask(&["EXISTS", key]) == "1").count();
        assert_eq!(found, 1, "{location}");
    }
}
