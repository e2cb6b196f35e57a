"""A small web server inside the cluster that serves good, bad and hostile model files."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2e.scenarios.team import Team

__all__ = ["FileServer"]

NAME = "files"
PUT = "/put"
"""Where files lie that were put there."""
PUT_SECONDS = 60

# Runs in a pod of the runtime's image, which has Python and the example models.
PROGRAM = """
import http.server, pathlib, socketserver, time

good = pathlib.Path("/usr/share/ullage/models/guide-v1.gguf").read_bytes()
FILES = {
    "/good.gguf": good,
    "/truncated.gguf": good[: len(good) // 2],
    "/text.gguf": b"<html>not a model</html>" * 1000,
}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        if path == "/silent.gguf":
            time.sleep(600)
        if path not in FILES and (put := pathlib.Path("/put" + path)).is_file():
            FILES[path] = put.read_bytes()
        status = 200 if path in FILES else 403 if path == "/forbidden.gguf" else 404
        content = FILES.get(path, b"no")
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

Server(("", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class FileServer:
    """The server of one team."""

    team: Team

    def url(self, name: str) -> str:
        """Return a file's address: good, truncated, text, absent, forbidden, silent, or one put."""
        return f"http://{NAME}.{self.team.namespace}.svc:8000/{name}"

    def start(self, image: str) -> None:
        """Start the server and wait until it answers."""
        labels = {"app": NAME}
        self.team.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME},
                "spec": {"selector": labels, "ports": [{"port": 8000}]},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": NAME, "labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": NAME,
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["python3", "-u", "-c", PROGRAM],
                            "volumeMounts": [{"name": "put", "mountPath": PUT}],
                            "readinessProbe": {"httpGet": {"path": "/good.gguf", "port": 8000}},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                    "volumes": [{"name": "put", "emptyDir": {}}],
                },
            },
        )
        self.team.kubectl(
            "wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s", timeout=70
        )

    def put(self, file: Path) -> str:
        """Add a file, and return its address."""
        program = (
            "import base64, pathlib, sys; "
            f"pathlib.Path({f'{PUT}/{file.name}'!r})"
            ".write_bytes(base64.b64decode(sys.stdin.read()))"
        )
        content = base64.b64encode(file.read_bytes()).decode()
        command = ("exec", "--stdin", NAME, "--", "python3", "-c", program)
        self.team.kubectl(*command, input=content, timeout=PUT_SECONDS)
        return self.url(file.name)
