//! What an edit of the shipped leaderboard does to its state: kept, or another.

use falaj::app;
use falaj::query::plan::Work;
use falaj::query::project::{Project, SqlFile};
use falaj::secrets::Secrets;

const FILES: [&str; 5] = ["sources", "lookups", "sinks", "enriched", "top_content"];

/// The file, what stands in it, what is written instead, and whether the state is another then.
const EDITS: &[(&str, &str, &str, bool)] = &[
    ("top_content", "LIMIT 100", "LIMIT 10", false),
    ("top_content", "ORDER BY engagements DESC, content_id", "HAVING count(*) > 2 ORDER BY engagements", false),
    ("top_content", "count(*) AS engagements", "2 * count(*) AS engagements", false),
    ("top_content", "'10 minutes'", "'5 minutes'", false),
    ("top_content", "'10 minutes'", "'1 hour'", false),
    ("sinks", "'ttl' '5m'", "'ttl' '6m'", false),
    ("enriched", "c.title,", "", false),
    ("sources", "'watermark.delay' '5s'", "'watermark.delay' '9s'", false),
    ("top_content", "'1 second'", "'2 seconds'", true),
    ("top_content", "GROUP BY", "WHERE event_type = 'play' GROUP BY", true),
    ("top_content", "GROUP BY", "WHERE title <> 'x' GROUP BY", true),
    ("top_content", "count(*) AS", "count(duration_ms) AS", true),
    ("top_content", "count(*) AS", "count(DISTINCT user_id) AS", true),
    ("top_content", "count(*) AS", "count(*) FILTER (WHERE event_type = 'play') AS", true),
    ("top_content", "count(*) AS", "sum(length_seconds) AS", true),
    ("sources", "LOCATION 'engagement_events'", "LOCATION 'other_events'", true),
    ("enriched", "LEFT JOIN", "JOIN", true),
];

#[tokio::test]
async fn an_edit_makes_another_state_where_it_holds_something_else_and_only_there() {
    let shipped = fingerprint(None).await;
    assert_eq!(fingerprint(None).await, shipped, "planned twice");
    for &edit in EDITS {
        let (_, _, new, is_other) = edit;
        assert_eq!(fingerprint(Some(edit)).await != shipped, is_other, "{new}");
    }
}

#[tokio::test]
async fn a_column_of_another_type_makes_another_state() {
    let summed = ("top_content", "count(*) AS", "sum(duration_ms) AS", true);
    let whole = fingerprint(Some(summed)).await;
    let mut files = shipped();
    edit(&mut files, summed);
    edit(&mut files, ("sources", "duration_ms BIGINT", "duration_ms DOUBLE", true));
    assert_ne!(of(files).await, whole);
}

async fn fingerprint(changed: Option<(&str, &str, &str, bool)>) -> String {
    let mut files = shipped();
    if let Some(changed) = changed {
        edit(&mut files, changed);
    }
    of(files).await
}

fn shipped() -> Vec<SqlFile> {
    let read = |name: &&str| {
        let path = format!("{}/queries/{name}.sql", env!("CARGO_MANIFEST_DIR"));
        SqlFile { path: format!("{name}.sql"), text: std::fs::read_to_string(path).unwrap() }
    };
    FILES.iter().map(read).collect()
}

fn edit(files: &mut [SqlFile], (file, old, new, _): (&str, &str, &str, bool)) {
    let found = files.iter_mut().find(|found| found.path == format!("{file}.sql")).unwrap();
    assert!(found.text.contains(old), "{file} has no {old}");
    found.text = found.text.replace(old, new);
}

async fn of(files: Vec<SqlFile>) -> String {
    let project = Project::read(files).await.unwrap();
    let plans = app::check(&project, Secrets::Optional).await.unwrap();
    match &plans[0].work {
        Work::Windows(windows) => windows.fingerprint.clone(),
        Work::Rows(_) => panic!("a leaderboard has windows"),
    }
}
