//! Log lines: as text or as JSON, and never with a payload or a secret.

use serde_json::Value;

use crate::support::falaj::Falaj;
use crate::support::kafka::Record;
use crate::support::project::Project;
use crate::support::receiver::Receiver;

#[tokio::test]
async fn every_line_of_json_logs_is_an_object_and_none_has_a_payload_or_a_secret() {
    let project = Project::new(1).await;
    let receiver = Receiver::start(project.path("received"));
    project.fill_content(10, 1);
    let secret = "b3st-kept";
    project.topic.produce(0, &[Record::of(r#"{"id":1,"user_id":"hidden-payload","#), Record::of("hidden-payload")]);
    let mut command = project.command(&["--log-format", "json", "run", "queries", "--until", "latest", "--no-web"]);
    let url = receiver.url.replacen("http://", &format!("http://falaj:{secret}@"), 1);
    command.env("PARTNER_URL", url).env("FALAJ_LOG", "falaj=debug,info");
    let (status, said) = Falaj::start(&mut command).end();
    assert!(status.success(), "{said}");
    assert!(!said.contains(secret) && !said.contains("hidden-payload"), "{said}");
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for line in &lines {
        assert!(["timestamp", "level", "message", "target"].iter().all(|name| line[name].is_string()), "{line}");
    }
    assert!(lines.iter().any(|line| line["level"] == "INFO"), "{said}");
    project.finish().await;
}

#[tokio::test]
async fn what_ends_falaj_is_a_line_of_the_logs_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wrong.sql"), "INSERT INTO nowhere SELECT 1;").unwrap();
    let args = ["check", folder.path().to_str().unwrap(), "--log-format", "json"];
    let (status, said) = Falaj::start(&mut crate::support::falaj::command(folder.path(), &args)).end();
    assert_eq!(status.code(), Some(78), "{said}");
    let line: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((line["level"].as_str(), line["kind"].as_str()), (Some("ERROR"), Some("Sql")));
    assert!(line["message"].as_str().unwrap().contains("nowhere"), "{line}");
}
