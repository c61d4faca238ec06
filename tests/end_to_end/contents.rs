//! The content table in Postgres while events come: rows that are new, and a Postgres that goes away and comes back.

use super::oracle::Row;
use crate::support::kafka::Record;
use crate::support::project::{Project, lookup, wait_until};
use crate::support::proxy::Proxy;
use crate::support::receiver::Receiver;

struct Scene {
    project: Project,
    receiver: Receiver,
    events: i64,
}

impl Scene {
    /// A new content, straight to Postgres.
    async fn insert(&self, id: &str, title: &str) {
        let sql = "INSERT INTO content VALUES ($1, $1, $2, 'video', 10, now())";
        self.project.database.execute(sql, &[&id, &title]).await.unwrap();
    }

    /// An event of `content`.
    fn happen(&mut self, content: &str) {
        self.events += 1;
        let payload = format!(
            r#"{{"id":{},"content_id":"{content}","user_id":"u","event_type":"play","event_ts":"2026-01-01T00:00:00Z","duration_ms":2500,"device":"web","raw_payload":{{}}}}"#,
            self.events
        );
        self.project.topic.produce(0, &[Record::of(payload)]);
    }

    /// Waits until the last event has come to the partner; gives its title and share.
    async fn enriched(&self) -> (Option<String>, Option<f64>) {
        let events = self.events;
        wait_until("the partner has every event", async || self.receiver.counts().await["effective_rows"] == events).await;
        let row: Row = serde_json::from_str(self.receiver.rows().last().unwrap()).unwrap();
        assert_eq!(row.id, events);
        (row.title, row.engagement_pct)
    }
}

#[tokio::test]
async fn a_content_inserted_just_before_its_event_is_joined_and_an_unreachable_postgres_keeps_the_last_version() {
    let mut project = Project::new(1).await;
    project.remove(&["bigquery", "top_content", "top_content_seconds"]);
    project.replace("lookups", "'refresh' '30s'", "'refresh' '1h'");
    project.fill_content(1, 1);
    let (before, rest) = project.database_url.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let proxy = Proxy::of(server);
    proxy.open();
    project.database_url = format!("{before}@{}/{database}", proxy.addr());
    let receiver = Receiver::start(project.path("received"));
    let mut scene = Scene { project, receiver, events: 0 };
    scene.insert("a", "Anna").await;
    let (falaj, page) = scene.project.run(&scene.receiver.url, &[]);
    let title = |title: &str| (Some(title.to_string()), Some(0.25));

    scene.happen("a");
    assert_eq!(scene.enriched().await, title("Anna"));
    // No refresh comes: what is known stays as it was loaded, what is new is asked for.
    scene.project.database.execute("UPDATE content SET title = 'Anne' WHERE id = 'a'", &[]).await.unwrap();
    for (content, name) in [("b", "Bert"), ("c", "Carl")] {
        scene.insert(content, name).await;
        scene.happen(content);
        assert_eq!(scene.enriched().await, title(name));
    }
    scene.happen("a");
    assert_eq!(scene.enriched().await, title("Anna"));
    scene.happen("nobody");
    assert_eq!(scene.enriched().await, (None, None));

    proxy.cut();
    for (content, name) in [("a", "Anna"), ("b", "Bert"), ("a", "Anna")] {
        scene.happen(content);
        assert_eq!(scene.enriched().await, title(name), "the last version stays in use");
    }
    // A content that is not known waits for Postgres, and so do the events behind it.
    scene.insert("d", "Dora").await;
    scene.happen("d");
    scene.happen("d");
    wait_until("it says what it waits for", async || {
        let trouble = lookup(&page, "content").await["trouble"].to_string();
        trouble.contains("waits for 1 missing keys")
    })
    .await;
    assert_eq!(scene.receiver.counts().await["effective_rows"], scene.events - 2);
    proxy.open();
    assert_eq!(scene.enriched().await, title("Dora"));

    falaj.terminate();
    let (status, said) = falaj.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(scene.project.topic.letters(), [], "a server that is away is no dead letter");
    scene.project.finish().await;
}
