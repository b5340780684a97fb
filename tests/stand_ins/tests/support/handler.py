"""A custom handler for tests of the host double: it answers what the path says."""

import http.server
import json
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        if "die" in self.path:
            os._exit(3)
        if "hang" in self.path:
            sys.stdin.read()
            import time

            time.sleep(600)
        status = 500 if os.environ.get("FAIL_TIMER") and self.path == "/tick" else 200
        self.answer(
            status,
            {
                "method": self.command,
                "path": self.path,
                "host": self.headers.get("Host"),
                "invocation": self.headers.get("X-Azure-Functions-InvocationId"),
                "body": body,
                "setting": os.environ.get("A_SETTING"),
                "pid": os.getpid(),
                "Logs": ["from the timer"] if self.path == "/tick" else [],
            },
        )

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, *_):
        pass


print("to stdout", flush=True)
print("to stderr", file=sys.stderr, flush=True)
if os.environ.get("DIE_AT_START"):
    sys.exit(1)
port = int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])
assert os.environ["FUNCTIONS_HTTPWORKER_PORT"] == str(port)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
