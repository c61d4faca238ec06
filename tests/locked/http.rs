//! An HTTP endpoint that asks for TLS, a bearer token and a certificate.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::keys::Keys;
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, send};
use crate::support::falaj::Falaj;
use crate::support::project::Project;

const TOKEN: &str = "s3cret-of-the-test";
/// Takes a certificate that the authority vouches for, and one token; prints its port first, then `+` for each body that it took.
const SERVER: &str = r#"
import http.server, ssl, sys
folder, token = sys.argv[1:]
class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        is_known = self.headers["Authorization"] == "Bearer " + token
        if is_known: print("+", flush=True)
        self.send_response(204 if is_known else 401)
        self.end_headers()
    def log_message(self, *_): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/server.pem", folder + "/server.key")
context.load_verify_locations(folder + "/ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_port, flush=True)
server.serve_forever()
"#;

struct Endpoint {
    child: Child,
    port: u16,
}

impl Endpoint {
    fn start(keys: &Keys) -> Self {
        let folder = keys.folder().display().to_string();
        let mut command = Command::new("python3");
        let mut child =
            command.args(["-c", SERVER, &folder, TOKEN]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn http_is_called_with_tls_a_token_and_a_certificate_and_what_is_wrong_is_one_sentence() {
    let keys = Keys::make();
    let endpoint = Endpoint::start(&keys);
    let port = endpoint.port;
    std::fs::write(keys.folder().join("token"), format!("Bearer {TOKEN}\n")).unwrap();
    std::fs::write(keys.folder().join("wrong"), "Bearer wrong\n").unwrap();
    let token = |file: &str| format!(", 'header.authorization' '${{file:{}}}'", keys.text(file));
    let ca = |file: &str| format!(", 'tls.ca' '{}'", keys.text(file));
    let own = format!(", 'tls.cert' '{}', 'tls.key' '{}'", keys.text("client.pem"), keys.text("client.key"));
    let right = [ca("ca.pem"), own.clone(), token("token")].concat();
    let distrust = "do not trust each other: check 'tls.ca'";
    for (what, host, options, expected) in [
        ("right", "localhost", right.clone(), ""),
        ("token", "localhost", [ca("ca.pem"), own.clone(), token("wrong")].concat(), "401"),
        ("authority", "localhost", [ca("other.pem"), own, token("token")].concat(), distrust),
        ("name", "127.0.0.1", right, distrust),
        ("certificate", "localhost", [ca("ca.pem"), token("token")].concat(), distrust),
    ] {
        let project = Project::new(PARTITIONS).await;
        project.fill_content(CONTENTS, SEED);
        project.remove(&["bigquery", "top_content", "top_content_seconds"]);
        project.replace("sinks", "OPTIONS ('batch.rows' '500')", &format!("OPTIONS ('batch.rows' '500'{options})"));
        send(&project, &events(1_000));
        let url = format!("https://{host}:{port}/engagements");
        let mut command = project.command(&["run", "queries", "--until", "latest", "--no-web"]);
        let (status, said) = Falaj::start(command.env("PARTNER_URL", url)).end();
        assert!(!said.contains(TOKEN), "{what}: {said}");
        match expected {
            "" => {
                assert_eq!(status.code(), Some(0), "{what}: {said}");
                assert!(said.contains("lane 'partner': 1000 records, 1000 rows written"), "{what}: {said}");
            }
            expected => {
                assert_eq!(status.code(), Some(1), "{what}: {said}");
                assert!(said.lines().any(|line| line.contains(expected)), "{what}: no '{expected}' in {said}");
            }
        }
        project.finish().await;
    }
}
