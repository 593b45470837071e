"""A receiver of webhooks: takes what is signed, prints it, refuses the rest.

rushes serve --config lab.toml                    # with `allow_private = true` under [media]: localhost may be called
WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver(ThreadingHTTPServer):
    """On loopback; `secret` is what `rushes keys webhook-secret KEY_ID` prints."""

    def __init__(self, secret: str, port: int = 9000) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.webhook = Webhook(secret)
        self.seen: dict[str, object] = {}  # by id: a message may come more than once


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            # Over the bytes as they came: JSON that was parsed and written again has another signature.
            message = self.server.webhook.verify(body, dict(self.headers.items()))
        except WebhookVerificationError:
            self.send_response(401)
        else:
            self.server.seen[self.headers["webhook-id"]] = message
            print(json.dumps(message), flush=True)
            self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    Receiver(os.environ["WEBHOOK_SECRET"]).serve_forever()
