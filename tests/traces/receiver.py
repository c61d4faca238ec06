"""Takes traces by OTLP over HTTP and prints each span as a line of JSON, for as long as its standard input is open. The first line is the port."""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

one_by_one = threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        with one_by_one:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {pair.key: value(pair.value) for pair in resource.resource.attributes}["service.name"]
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        print(json.dumps({
                            "service": service,
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "begin": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                            "failed": span.status.message,
                            "attributes": {pair.key: value(pair.value) for pair in span.attributes},
                        }), flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
os._exit(0)
