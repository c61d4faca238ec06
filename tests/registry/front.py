"""Stands before a real schema registry and adds what that one has not: front.py UPSTREAM FOLDER [OPTION…]. Prints its URL when it serves, and
every answer's status on a line of its own.
  login=TEXT     lets in only who sends this Authorization
  first=503,429  answers so first, and passes on only what comes later
  guids          has GUIDs, as Confluent's registry since version 8: the id as a number of 128 bits
  tls            speaks TLS with a certificate of a CA of its own, which is FOLDER/ca.pem; FOLDER/other.pem is another CA
  mutual         the same, and asks for a certificate of that CA: FOLDER/client.pem with its key FOLDER/client.key; stranger.pem is another's
"""

import datetime
import http.server
import ipaddress
import json
import pathlib
import ssl
import sys
import urllib.error
import urllib.request
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

upstream, folder, *options = sys.argv[1:]
folder = pathlib.Path(folder)
options = dict(option.partition("=")[::2] for option in options)
first = [int(status) for status in options.get("first", "").split(",") if status]


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.forward(None)

    def do_POST(self):
        self.forward(self.rfile.read(int(self.headers["Content-Length"])))

    do_PUT = do_POST

    def forward(self, body):
        status, answer = self.answer(body)
        print(status, flush=True)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, body):
        if "login" in options and self.headers["Authorization"] != options["login"]:
            return 401, b'{"error_code":40101,"message":"who are you?"}'
        if first:
            return first.pop(0), b""
        path = self.path
        if "guids" in options and path.startswith("/schemas/guids/"):
            number = uuid.UUID(path.split("/")[3]).int
            if path.endswith("/ids"):
                return 200, json.dumps([{"context": ".", "id": number}]).encode()
            path = f"/schemas/ids/{number}"
        request = urllib.request.Request(upstream + path, body, method=self.command)
        request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        try:
            with urllib.request.urlopen(request) as answer:
                status, found = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        value = json.loads(found)
        if "guids" in options and isinstance(value, dict) and "id" in value:
            found = json.dumps({**value, "guid": str(uuid.UUID(int=value["id"]))}).encode()
        return status, found

    def log_message(self, *_):
        pass


def authority(file):
    """A CA, whose certificate is in the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
    made = certificate(name, name, key.public_key(), key, x509.BasicConstraints(ca=True, path_length=0))
    (folder / file).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return name, key


def certificate(subject, issuer, public, signer, extension):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    return builder.add_extension(extension, critical=False).sign(signer, hashes.SHA256())


def private(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def client(name, issuer, signer):
    """A certificate for whoever asks, and its key, in files of that name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    made = certificate(subject, issuer, key.public_key(), signer, use)
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(private(key))


def tls(socket):
    strangers = authority("other.pem")
    issuer, signer = authority("ca.pem")
    client("client", issuer, signer)
    client("stranger", *strangers)
    key = ec.generate_private_key(ec.SECP256R1())
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front")]), issuer, key.public_key(), signer, here)
    (folder / "front.pem").write_bytes(private(key) + own.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "front.pem")
    if "mutual" in options:
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context.wrap_socket(socket, server_side=True, do_handshake_on_connect=False)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
scheme = "http"
if "tls" in options or "mutual" in options:
    server.socket, scheme = tls(server.socket), "https"
print(f"{scheme}://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
