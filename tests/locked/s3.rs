//! S3 that asks for TLS and for an access key, with the files of a lane and the checkpoint in it.

use super::keys::Keys;
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;
use crate::support::s3::{BUCKET, Server};

/// The files alone, at `location` with `options`.
async fn project(location: &str, options: &str) -> Project {
    let project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    project.remove(&["top_content", "partner", "top_content_seconds"]);
    project.replace("sinks", "LOCATION 'data/bigquery_output/'", &format!("LOCATION '{location}'"));
    project.replace("sinks", "'roll.interval'", &format!("{options}'roll.interval'"));
    send(&project, &events(1_000));
    project
}

#[tokio::test]
async fn s3_is_written_with_tls_and_an_access_key_and_what_is_wrong_is_one_sentence() {
    let keys = Keys::make();
    let server = Server::start_with(&["--login", "--tls", &keys.text("server.pem"), &keys.text("server.key")]);
    let (files, (key, secret)) = (format!("s3://{BUCKET}/files/"), &server.login);
    let options = |host: &str, key: &str, secret: &str, ca: &str| {
        let port = server.port;
        format!(
            "'aws.endpoint' 'https://{host}:{port}', 'aws.access_key_id' '{key}', 'aws.secret_access_key' '{secret}', 'tls.ca' '{}', ",
            keys.text(ca)
        )
    };
    let mut right = project(&files, &options("localhost", key, secret, "ca.pem")).await;
    right.environment = vec![
        ("AWS_ENDPOINT_URL", format!("https://localhost:{}", server.port)),
        ("AWS_ACCESS_KEY_ID", key.clone()),
        ("AWS_SECRET_ACCESS_KEY", secret.clone()),
        ("AWS_CA_BUNDLE", keys.text("ca.pem")),
    ];
    let settings = format!("SET falaj.listen = '127.0.0.1:0'; SET falaj.checkpoint = 's3://{BUCKET}/checkpoint';");
    right.write("settings", &settings);
    let said = right.run_until_latest("http://unused");
    assert!(said.contains("lane 'bigquery': 1000 records, 1000 rows written"), "{said}");
    assert!(!said.contains(secret.as_str()), "{said}");

    for (what, location, options, expected) in [
        ("secret", &files, options("localhost", key, "wrong", "ca.pem"), "S3 refuses who we are; check the access key"),
        ("key", &files, options("localhost", "AKIAWRONG", secret, "ca.pem"), "S3 refuses who we are; check the access key"),
        ("authority", &files, options("localhost", key, secret, "other.pem"), "certificate is not trusted for this host"),
        ("name", &files, options("127.0.0.1", key, secret, "ca.pem"), "certificate is not trusted for this host"),
        ("bucket", &"s3://nobodys/files/".to_string(), options("localhost", key, secret, "ca.pem"), "there is no such bucket"),
    ] {
        let project = project(location, &options).await;
        let (status, said) = Falaj::start(&mut project.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
        assert_eq!(status.code().map(|code| code == 1 || code == 78), Some(true), "{what}: {said}");
        let sentences: Vec<&str> = said.lines().filter(|line| line.starts_with("falaj: ")).collect();
        assert!(sentences.len() == 1 && sentences[0].contains(expected), "{what}: no '{expected}' in {said}");
        assert!(!said.contains(secret.as_str()) && !sentences[0].contains('<'), "{what}: {said}");
        project.finish().await;
    }
    // The checkpoint is reached by the environment alone.
    right.environment[2].1 = "wrong".to_string();
    let (status, said) = Falaj::start(&mut right.command(&["run", "queries", "--until", "latest", "--no-web"])).end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("checkpoint/lineage.json, since S3 refuses who we are"), "{said}");
    right.finish().await;
}
