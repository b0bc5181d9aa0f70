"""A stand-in for Shoal's server as a hub sees it: pools, users, login codes, and apps that are processes of this host."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Iterator, List, Optional, Tuple

TOKEN = "the-hub-s-token"
PATIENCE = 300  # seconds, for what takes a moment where there is nothing else to do


def problem(status: int, kind: str, detail: str, hint: str = "") -> Tuple[int, Any]:
    return status, {"type": "about:blank", "status": status, "kind": kind, "detail": detail, "hint": hint}


HELD: List[socket.socket] = []


def hold_port() -> int:
    """A port that is nobody else's until this process ends. Nobody listens there; who sets SO_REUSEADDR, as servers do, may."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    HELD.append(s)
    return int(s.getsockname()[1])


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class World:
    """What there is. ``hold``: apps wait for a machine until it is cleared; ``away``: every request fails so."""

    def __init__(self) -> None:
        self.pools: List[Dict[str, Any]] = [{"name": "lab", "endpoints": [{"name": "jupyter", "protocol": "http"}], "machine": {"cpus": 2, "memory": "4GiB"}}]
        self.users: Dict[str, Dict[str, Any]] = {"alice": {"name": "alice", "groups": ["research"]}, "bob": {"name": "bob"}}
        self.passwords = {"alice": "correct horse"}
        self.apps: Dict[str, Dict[str, Any]] = {}
        self.orders: Dict[str, Dict[str, Any]] = {}
        self.codes: Dict[str, Tuple[str, str, str]] = {}
        self.activities: List[Tuple[str, Any]] = []
        self.requests: List[str] = []
        self.processes: Dict[str, "subprocess.Popen[bytes]"] = {}
        self.homes = tempfile.TemporaryDirectory(prefix="shoal-fake-")
        self.hold = threading.Event()
        self.away: Optional[Tuple[int, Any]] = None
        self.run = True  # apps really run
        self.changed = threading.Condition()

    def close(self) -> None:
        for p in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(p.pid, signal.SIGKILL)
            p.wait()
        self.homes.cleanup()

    def change(self, id: str, **values: Any) -> None:
        with self.changed:
            self.apps[id].update(values, rev=self.apps[id]["rev"] + 1)
            self.changed.notify_all()

    def open(self, order: Dict[str, Any]) -> Tuple[int, Any]:
        key = [order.get(k) or "" for k in ("user", "pool", "endpoint", "name")]
        for a in self.apps.values():
            if [a[k] for k in ("user", "pool", "endpoint", "name")] == key and a["state"] not in ("ended", "failed"):
                return 200, a
        id = f"a-{len(self.apps) + 1}"
        self.apps[id] = dict(zip(("user", "pool", "endpoint", "name"), key), id=id, state="waiting", rev=1, created=now(), progress="pool lab has no machine: one is being made")
        self.orders[id] = order
        threading.Thread(target=self.start, args=(id, order), daemon=True).start()
        return 201, self.apps[id]

    def start(self, id: str, order: Dict[str, Any]) -> None:
        while self.hold.is_set():
            time.sleep(0.02)
        self.change(id, state="starting", machine="m-1", progress="the app starts on machine m-1")
        if not self.run:
            self.change(id, state="running", progress="", address="127.0.0.1:9")
            return
        port = hold_port()
        home = os.path.join(self.homes.name, order["user"])
        os.makedirs(home, exist_ok=True)
        env = {"PATH": "/usr/bin:/bin", "HOME": home, "USER": order["user"], "SHELL": "/bin/sh", "LANG": "C.UTF-8", "SHOAL_PORT": str(port),
               "SHOAL_LOCAL": os.path.join(self.homes.name, "local"), "PYTHONDONTWRITEBYTECODE": "1", **order["env"]}  # fmt: skip
        os.makedirs(env["SHOAL_LOCAL"], exist_ok=True)
        with open(os.path.join(self.homes.name, id + ".log"), "wb") as log:
            p = self.processes[id] = subprocess.Popen(["/bin/sh", "-c", order["command"]], env=env, cwd="/", stdout=log, stderr=log, start_new_session=True)
        until = time.time() + PATIENCE
        while p.poll() is None and time.time() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                self.change(id, state="running", progress="", address=f"127.0.0.1:{port}")
                break
            time.sleep(0.05)
        code = p.wait()
        with open(log.name, encoding="utf-8", errors="replace") as f:
            text = f.read()
        self.change(id, state="failed" if code else "ended", exitCode=code if code >= 0 else 128 - code, log=text[-2000:], reason=f"it ended with exit code {code}")

    def stop(self, id: str) -> None:
        p = self.processes.get(id)
        if p is None:
            self.change(id, state="ended", reason="it was ended")
        elif p.poll() is None:
            os.killpg(p.pid, signal.SIGTERM)

    def wait(self, id: str, rev: int) -> Dict[str, Any]:
        with self.changed:
            self.changed.wait_for(lambda: self.apps[id]["rev"] > rev, timeout=5)
            return self.apps[id]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        kind = "text/html" if isinstance(value, bytes) else "application/problem+json" if status >= 400 else "application/json"
        for k, v in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        u = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(u.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.world.requests.append(f"{self.command} {u.path}")
        if self.world.away:
            self.answer(*self.world.away)
        elif u.path == "/shoal/authorize":  # the browser says with a cookie who sits before it
            user = (self.headers.get("Cookie") or "").partition("fake-user=")[2].partition(";")[0]
            code = secrets.token_urlsafe(8)
            self.world.codes[code] = (user, query["redirect_uri"], query["state"])
            self.answer(302, None, Location=query["redirect_uri"] + "?" + urllib.parse.urlencode({"code": code, "state": query["state"]}))
        elif u.path == "/shoal/":
            self.answer(200, b"<h1>Shoal</h1>")
        else:
            self.answer(*self.api(u.path.split("/")[3:], query, body))

    do_POST = do_DELETE = do_GET

    def api(self, path: List[str], query: Dict[str, str], body: Any) -> Tuple[int, Any]:
        w = self.world
        if path == ["login"]:
            if w.passwords.get(body["user"]) != body["password"]:
                return problem(401, "unauthenticated", "the name or the password is wrong")
            return 200, {"token": "hers", "expires": now()}
        if self.headers.get("Authorization") != "Bearer " + TOKEN:
            return problem(401, "unauthenticated", "who is asking?")
        if path == ["pools"]:
            return 200, {"items": w.pools}
        if path == ["web", "redeem"]:
            user, uri, state = w.codes.pop(body["code"], ("", "", ""))
            if w.users.get(user, {}).get("disabled", not user) or (uri, state) != (body["redirectUri"], body["state"]):
                return problem(403, "denied", "this code is not valid")
            return 200, {"user": user, "groups": w.users[user].get("groups", []), "admin": False}
        if path[0] == "users" and path[1] in w.users:
            return 200, w.users[path[1]]
        if path == ["apps"] and self.command == "GET":
            return 200, {"items": [a for a in w.apps.values() if a["state"] not in ("ended", "failed")]}
        if path == ["apps"]:
            return w.open(body)
        if path[0] == "apps" and path[1] in w.apps:
            return self.app(path[1], path[2:], query, body)
        return problem(404, "notFound", f"there is nothing at {self.path}")

    def app(self, id: str, rest: List[str], query: Dict[str, str], body: Any) -> Tuple[int, Any]:
        w = self.world
        if self.command == "DELETE":
            w.stop(id)
            return 204, None
        if rest == ["wait"]:
            return 200, w.wait(id, int(query.get("rev") or 0))
        if rest == ["activity"]:
            w.activities.append((id, body))
            return 204, None
        return 200, w.apps[id]


@contextlib.contextmanager
def serving(world: World) -> Iterator[str]:
    handler = type("Handler", (Handler,), {"world": world})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        world.close()
