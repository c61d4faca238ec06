"""An S3 server (moto) on a free port of 127.0.0.1, for as long as its standard input is open. Its first line of output is the port.

    server.py [--login] [--tls CERTIFICATE KEY] [BUCKET…]

With --login it takes signed requests of one user only, whose access key and secret follow the port. Requests are served one after the
other, so that a conditional PUT is decided as S3 decides it: moto looks and writes in two steps.
"""

import argparse
import io
import os
import ssl
import sys
import threading

arguments = argparse.ArgumentParser()
arguments.add_argument("--login", action="store_true")
arguments.add_argument("--tls", nargs=2)
arguments.add_argument("buckets", nargs="*")
arguments = arguments.parse_args()

# Read when moto is imported: from the first request on, whoever asks must say who he is.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0" if arguments.login else "inf"

import json

from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"
one_by_one = threading.Lock()
app = DomainDispatcherApplication(create_backend_app)


def serve(environ, start_response):
    # A client that is stopped in the middle of its body holds up nobody else.
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    with one_by_one:
        return list(app(environ, start_response))


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are two writes, of which the second would wait for the first to be acknowledged.
    disable_nagle_algorithm = True
    timeout = 60

    def log(self, *_):
        pass


context = None
if arguments.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*arguments.tls)
server = make_server("127.0.0.1", 0, serve, threaded=True, request_handler=Handler, ssl_context=context)
for bucket in arguments.buckets:
    s3_backends[ACCOUNT]["aws"].create_bucket(bucket, "us-east-1")
print(server.port, flush=True)
if arguments.login:
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user("us-east-1", "falaj")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy("falaj", "everything", json.dumps(everything))
    key = iam.create_access_key("falaj")
    print(key.access_key_id, key.secret_access_key, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
os._exit(0)
