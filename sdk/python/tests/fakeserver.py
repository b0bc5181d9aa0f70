"""A server that answers as Shoal's does, in memory: HTTP in front of jobs in processes of this host.

It is a stand-in for what is tested with the real one elsewhere (internal/scripttest), and has faults to order.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socketserver
import tempfile
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Iterator, List

from shoal import errors
from shoal._local import LocalBackend

TOKEN = "secret-token"


class World:
    """What the server knows. ``machine`` is where it takes the caller to be; ``faults`` are statuses that the next
    requests are answered with, 0 for a connection that breaks after the request was carried out."""

    def __init__(self, machine: str = "", home: bool = True) -> None:
        self.top = tempfile.mkdtemp(prefix="shoal-fake-")
        self.share = os.path.join(self.top, "shared")
        os.makedirs(self.share)
        self.local = LocalBackend("lab", workers=4)
        self.machine = machine
        self.pool: Dict[str, Any] = {"name": "lab", "image": "host", "uses": ["interactive", "batch"], "mounts": [{"share": "team", "path": self.share}]}
        if home:
            self.pool["home"] = {"share": "team", "path": "home/{user}"}
        self.faults: List[int] = []
        self.requests: List[str] = []

    def close(self) -> None:
        self.local.close()
        shutil.rmtree(self.top, ignore_errors=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "test"

    def answer(self, status: int, value: Any, media: str = "application/json") -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def problem(self, e: errors.ShoalError, status: int) -> None:
        self.answer(status, {"type": "about:blank", "status": status, "kind": e.kind, "detail": e.message, "hint": e.hint, "mistakes": e.mistakes}, "application/problem+json")

    def do_GET(self) -> None:
        self.serve(None)

    def do_POST(self) -> None:
        self.serve(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0))))

    def serve(self, body: Any) -> None:
        u = urllib.parse.urlsplit(self.path)
        path = [urllib.parse.unquote(p) for p in u.path.split("/")[3:]]
        query = {k: v[0] for k, v in urllib.parse.parse_qs(u.query).items()}
        self.world.requests.append(f"{self.command} /{'/'.join(path)}")
        fault = self.world.faults.pop(0) if self.world.faults else None
        if fault:
            self.answer(fault, b"<html>a proxy's page</html>", "text/html")
            return
        if not isinstance(self.server, socketserver.UnixStreamServer) and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.problem(errors.UnauthenticatedError("who is asking?", "log in with `shoal login`"), 401)
            return
        try:
            value = self.route(path, query, body)
        except errors.NotFoundError as e:
            self.problem(e, 404)
            return
        except FileNotFoundError as e:
            self.problem(errors.NotFoundError(str(e)), 404)
            return
        except errors.InvalidError as e:
            self.problem(e, 400)
            return
        if fault == 0:
            self.close_connection = True
            self.connection.close()
            return
        if value is not None:
            self.answer(200, value)

    def route(self, path: List[str], query: Dict[str, str], body: Any) -> Any:
        w = self.world
        if path == ["whoami"]:
            who = {"user": self.headers.get("Shoal-As") or "alice", "role": "member"}
            return dict(who, machine=w.machine, pool="lab") if w.machine else who
        if path == ["pools"]:
            return {"items": [w.pool], "rev": 1}
        if path == ["pools", "lab"]:
            return w.pool
        if path == ["jobs"]:
            return {"items": [w.local.job(i) for i in reversed(list(w.local.jobs)[-int(query.get("limit") or 1000) :])], "rev": 1}
        if path == ["jobs:batch"]:
            return {"items": [self.submit(s) for s in body["jobs"]]}
        if path == ["jobs:status"]:
            items, rev = w.local.status(body.get("ids") or (), body.get("externalIds") or (), body.get("label") or "", body.get("rev") or 0)
            return {"items": items, "rev": rev}
        if path == ["jobs:cancel"]:
            w.local.cancel(body["ids"])
            return {"cancelled": body["ids"]}
        if path[:1] == ["jobs"] and len(path) > 1:
            return self.job(path[1], path[2:], query, body)
        raise errors.NotFoundError(f"there is nothing at {self.path}")

    def submit(self, spec: Dict[str, Any]) -> Any:
        if spec.get("pool", "lab") != "lab":
            return {"problem": {"kind": "notFound", "detail": f"there is no pool {spec['pool']}", "hint": "`shoal pool list` shows the pools"}}
        known = spec["name"] if "name" in spec else ""
        if len(known) > 63:
            return {"problem": {"kind": "invalid", "detail": "the name is too long"}}
        return self.world.local.submit([dict(spec, pool="lab")])[0]

    def job(self, id: str, rest: List[str], query: Dict[str, str], body: Any) -> Any:
        local = self.world.local
        if not rest:
            return dict(local.job(id), user="alice")
        if rest == ["tasks"]:
            start, limit = int(query.get("cursor") or query.get("from") or 0), int(query.get("limit") or 1000)
            found = list(local.tasks(id, start, limit))
            return {"items": found, "rev": 1, "next": str(found[-1]["index"] + 1) if len(found) == limit else ""}
        if rest == ["retry"]:
            local.retry(id, (body or {}).get("tasks") or "")
            return local.job(id)
        if rest == ["cancel"]:
            local.cancel_tasks(id, body["tasks"])
            return local.job(id)
        if rest == ["files"]:
            return {"items": list(local.files(id)), "rev": 1}
        if rest[0] == "files":
            self.answer(200, local.download(id, rest[1], "/".join(rest[2:])), "application/octet-stream")
            return None
        if rest[0] == "tasks" and rest[2:] == ["output"]:
            self.output(local.output(id, int(rest[1]), query.get("stream", "stdout"), query.get("follow") == "true", int(query.get("offset") or 0)))
            return None
        raise errors.NotFoundError(f"there is nothing at {self.path}")

    def output(self, parts: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            if self.world.faults and self.world.faults[0] == 0:
                self.world.faults.pop(0)
                self.close_connection = True
                self.connection.close()
                return
        self.wfile.write(b"0\r\n\r\n")


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def serving(world: World, socket: str = "") -> Iterator[str]:
    """Serves at an address, which it yields, or at a Unix socket."""
    handler = type("Handler", (Handler,), {"world": world})
    server: Any = UnixServer(socket, handler) if socket else ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield socket or f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
