//! A real server that speaks S3, of a test's own; it ends with the test. And what is in it, read without falaj.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::project::Project;

/// The bucket that is there.
pub(crate) const BUCKET: &str = "falaj-tests";

/// The server.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// Access key and secret.
    pub(crate) login: (String, String),
}

impl Server {
    /// One that takes whoever comes.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// `--login`: it wants to know who comes. `--tls CERTIFICATE KEY`: only so.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/server.py");
        let mut command = Command::new(python());
        let mut child =
            command.arg(script).args(options).arg(BUCKET).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.next().expect("the S3 server does not start").parse().unwrap();
        let login = if options.contains(&"--login") { lines.next().unwrap() } else { "any any".to_string() };
        let (key, secret) = login.split_once(' ').unwrap();
        Self { child, port, login: (key.to_string(), secret.to_string()) }
    }

    /// What a process needs to reach it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", self.login.0.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.login.1.clone()),
        ]
    }

    /// Lets the checkpoint of the project, and the files of `bigquery_output`, live in the bucket.
    pub(crate) fn houses(&self, project: &mut Project) {
        let settings = std::fs::read_to_string(project.path("queries/settings.sql")).unwrap();
        project.write("settings", &format!("{settings}\nSET falaj.checkpoint = 's3://{BUCKET}/checkpoint';"));
        project.replace("sinks", "LOCATION 'data/bigquery_output/'", &format!("LOCATION 's3://{BUCKET}/bigquery_output/'"));
        project.environment = self.environment();
    }

    /// Copies what is under `prefix` into `folder`.
    pub(crate) fn copy(&self, prefix: &str, folder: &Path) {
        self.python(COPY, &[prefix, folder.to_str().unwrap()]);
    }

    /// The keys under `prefix` with their sizes.
    pub(crate) fn keys(&self, prefix: &str) -> BTreeMap<String, u64> {
        let printed = self.python(KEYS, &[prefix]);
        let pair = |line: &str| line.rsplit_once(' ').map(|(key, size)| (key.to_string(), size.parse().unwrap()));
        printed.lines().filter_map(pair).collect()
    }

    /// How many multipart uploads are neither completed nor aborted.
    pub(crate) fn uploads(&self) -> usize {
        self.python(UPLOADS, &[]).trim().parse().unwrap()
    }

    /// How many of those have something in them, which costs money for as long as it stays.
    pub(crate) fn uploads_with_parts(&self) -> usize {
        self.python(UPLOADS_WITH_PARTS, &[]).trim().parse().unwrap()
    }

    fn python(&self, program: &str, args: &[&str]) -> String {
        let (port, (key, secret)) = (self.port.to_string(), &self.login);
        let program = format!("{CLIENT}{program}");
        let done = Command::new(python()).args(["-c", &program, &port, key, secret, BUCKET]).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Stops it as if the network did; it loses nothing.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits until `is` says so of the keys under `prefix`.
    pub(crate) fn wait_for(&self, prefix: &str, is: impl Fn(&BTreeMap<String, u64>) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is(&self.keys(prefix)) {
            assert!(Instant::now() < deadline, "{:?}", self.keys(prefix));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> String {
    std::env::var("FALAJ_PYTHON").expect("FALAJ_PYTHON names a Python with moto; scripts/test sets it")
}

const CLIENT: &str = "
import boto3, os, sys
port, key, secret, bucket, *args = sys.argv[1:]
s3 = boto3.client('s3', endpoint_url=f'http://127.0.0.1:{port}', aws_access_key_id=key, aws_secret_access_key=secret, region_name='us-east-1')
def objects(prefix):
    for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get('Contents', [])
";
const COPY: &str = "
prefix, folder = args
for found in objects(prefix):
    path = os.path.join(folder, found['Key'][len(prefix):].lstrip('/'))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path):
        s3.download_file(bucket, found['Key'], path)
";
const KEYS: &str = "
for found in objects(args[0]):
    print(found['Key'], found['Size'])
";
const UPLOADS: &str = "
print(len(s3.list_multipart_uploads(Bucket=bucket).get('Uploads', [])))
";
const UPLOADS_WITH_PARTS: &str = "
uploads = s3.list_multipart_uploads(Bucket=bucket).get('Uploads', [])
parts = lambda upload: s3.list_parts(Bucket=bucket, Key=upload['Key'], UploadId=upload['UploadId']).get('Parts', [])
print(sum(1 for upload in uploads if parts(upload)))
";
