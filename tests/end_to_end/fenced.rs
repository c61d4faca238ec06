//! Two processes on one checkpoint: the newest start drives the lanes, whatever the other one waits for.

use crate::support::project::{Project, lane, wait_until};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn a_process_that_waits_for_redis_does_not_take_its_lanes_back_from_one_that_was_started_after_it() {
    let mut project = Project::new(1).await;
    project.remove(&["bigquery", "partner", "top_content_seconds"]);
    project.fill_content(1, 1);
    let proxy = Proxy::of(project.redis_url.strip_prefix("redis://").unwrap());
    project.redis_url = format!("redis://{}", proxy.addr());
    let waits = async |page: &str| {
        wait_until("the lane waits for Redis", async || lane(page, "top_content").await["waits_for"].is_string()).await;
    };
    let (first, page) = project.run("http://unused", &[]);
    waits(&page).await;
    let (second, page) = project.run("http://unused", &[]);

    let (status, said) = first.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("lane 'top_content' stopped: another process has claimed lane 'top_content' while this one waited"),
        "{said}"
    );
    assert!(said.lines().last().unwrap().starts_with("falaj: lane '"), "{said}");

    waits(&page).await;
    proxy.open();
    wait_until("the lane runs", async || lane(&page, "top_content").await["state"] == "running").await;
    second.terminate();
    let (status, said) = second.end();
    assert_eq!(status.code(), Some(0), "{said}");
    project.finish().await;
}
