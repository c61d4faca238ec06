//! SIGTERM while something that a lane waits for does not answer.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{World, assert_said};
use crate::support::project::{lane, wait_until};
use crate::support::proxy::Proxy;
use crate::support::receiver::Receiver;

const EVENTS: usize = 6_000;

/// A place that takes connections and never answers: it does not even look.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

/// The world with the HTTP lane, which is in the middle of an epoch that does not end.
async fn waiting(patient: bool) -> (World, TcpListener, crate::support::falaj::Falaj) {
    let mut world = World::new(EVENTS).await;
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/queries/partner.sql")).unwrap();
    world.project.write("partner", &shipped);
    world.produce(EVENTS / 2);
    let (silent, url) = silent();
    let (mut falaj, page) = world.project.run(&url, &[]);
    wait_until("the others have read all", async || {
        lane(&page, "top_content").await["records"].as_u64() == Some(EVENTS as u64 / 2)
    })
    .await;
    if patient {
        falaj.wait_for_line(&["WARN", "table 'partner'", "takes no requests", "tried again"]);
    }
    (world, silent, falaj)
}

#[tokio::test]
async fn a_stop_takes_less_than_five_seconds_though_a_receiver_does_not_answer_and_nothing_is_lost() {
    let (mut world, silent, falaj) = waiting(true).await;
    let began = Instant::now();
    falaj.terminate();
    let (status, said) = falaj.end();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}:\n{said}");
    assert_eq!(status.code(), Some(0), "{said}");
    assert_said(&said, &["lane 'partner' stops while it waits", "the next start finishes what is open"]);
    drop(silent);
    // After the log's end a board's time moves on with the clock; further events take it back to theirs.
    world.produce(EVENTS / 2);
    let receiver = Receiver::start(world.project.path("received"));
    world.project.run_until_latest(&receiver.url);
    let counts = receiver.counts().await;
    assert_eq!((&counts["effective_rows"], &counts["rows"]), (&EVENTS.into(), &EVENTS.into()), "{counts}");
    world.is_exact().await;
    world.project.finish().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (world, _silent, mut falaj) = waiting(false).await;
    falaj.terminate();
    falaj.wait_for_line(&["stopping", "once more ends at once"]);
    let began = Instant::now();
    falaj.terminate();
    let (status, said) = falaj.end();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}:\n{said}", began.elapsed());
    assert_eq!(status.code(), Some(1), "{said}");
    world.project.finish().await;
}

#[tokio::test]
async fn an_outage_that_outlasts_the_patience_of_its_sink_is_told_once_and_its_end_once() {
    let mut world = World::new(EVENTS).await;
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/queries/partner.sql")).unwrap();
    world.project.write("partner", &shipped);
    world.project.replace("sinks", "'batch.rows' '500'", "'batch.rows' '500', 'retry.for' '10s'");
    world.produce(EVENTS / 2);
    let receiver = Receiver::start(world.project.path("received"));
    let host = receiver.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let proxy = Proxy::of(host);
    let url = receiver.url.replace(host, &proxy.addr().to_string());
    let (mut falaj, page) = world.project.run(&url, &[]);
    falaj.wait_for_line(&["WARN", "table 'partner'", "takes no requests"]);
    wait_until("the lane begins again", async || {
        lane(&page, "partner").await["waits_for"].as_str().is_some_and(|why| why.contains("has not taken a request"))
    })
    .await;
    // In the new attempt the sink would have told it once more by now.
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.open();
    falaj.wait_for_line(&["INFO", "table 'partner'", "takes requests again, after"]);
    wait_until("all is sent", async || receiver.counts().await["effective_rows"].as_u64() == Some(EVENTS as u64 / 2)).await;
    // As long as a lane must run for its outage to be over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let about = |line: &&str| line.contains("'partner'") && (line.contains("WARN") || line.contains("again"));
    assert_eq!(said.lines().filter(about).count(), 2, "{said}");
    world.project.finish().await;
}
