//! Found through sentinels.

use super::World;
use super::servers::{PASSWORD, SENTINEL_PASSWORD, Watched, board, until};
use super::wrong::Table;
use crate::locked::keys::Keys;

#[tokio::test]
async fn a_master_that_dies_is_replaced_by_the_sentinels_and_the_board_is_right() {
    let mut watched = Watched::start(None);
    // Who is asked first is not there.
    let url = format!("'url' 'redis://127.0.0.1:1,{}', 'sentinel' 'mine'", watched.hosts("127.0.0.1"));
    let mut world = World::new(|_| url).await;
    let key = world.key.clone();
    let expected = world.produce();
    let mut falaj = world.start();
    until("the board is there", || board(&watched.master, &key) == expected);
    watched.master.leaves_behind(&watched.replica, &key);
    let expected = world.produce();
    until("the master has what its replica has not", || board(&watched.master, &key) == expected);
    watched.master.kill();
    world.produce();
    falaj.wait_for_line(&["WARN", "table 'top_content': the Redis 'mine' of the sentinels at 127.0.0.1:1,", "does not do it"]);
    watched.replica.signal("CONT");
    falaj.wait_for_line(&["INFO", "table 'top_content'", "does it again, after"]);
    let expected = world.produce();
    until("the board is right again", || board(&watched.replica, &key) == expected);
    world.finish(falaj).await;
}

#[tokio::test]
async fn what_sentinels_know_is_written_with_tls_and_a_user_and_they_have_a_password_of_their_own() {
    let keys = Keys::make();
    let watched = Watched::start(Some(&keys));
    let url = |password: &str| format!("rediss://app:{password}@{}/0", watched.hosts("localhost"));
    let ca = keys.text("ca.pem");
    for (redis, sentinel, says) in [
        (PASSWORD, SENTINEL_PASSWORD, ""),
        ("wrong", SENTINEL_PASSWORD, "Redis refuses the user or the password"),
        (PASSWORD, "wrong", "a sentinel refuses the user or the password"),
    ] {
        let url = url(redis);
        let mut options = vec![("url", url.as_str()), ("tls.ca", &ca), ("sentinel", "mine")];
        options.extend([("sentinel.user", "watcher"), ("sentinel.password", sentinel)]);
        let said = Table::new("top", "zset", &options).write().await.err().map_or(String::new(), |error| error.chain());
        assert!(said.contains(says) && said.is_empty() == says.is_empty(), "{says}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert_eq!(board(&watched.master, "top"), [("a".to_string(), 1.0)]);
}
