"""A real JupyterHub with its own proxy, whose servers are apps of a stand-in for Shoal: login, start, a cell, restarts."""

import contextlib
import http.cookiejar
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any, Iterator, Tuple

from tests import fakeshoal
from tests.fakeshoal import PATIENCE

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READY = importlib.util.find_spec("jupyterhub") and importlib.util.find_spec("notebook") and shutil.which("configurable-http-proxy") and shutil.which("jupyterhub-singleuser")
CONFIG = """
c.JupyterHub.spawner_class = "shoal_jupyterhub.ShoalSpawner"
c.JupyterHub.authenticator_class = "shoal_jupyterhub.ShoalAuthenticator"
c.Shoal.server = {shoal!r}
c.Shoal.token_file = "token"
c.ShoalAuthenticator.single_sign_on = {sso}
c.ShoalAuthenticator.auth_refresh_age = 1
c.ShoalSpawner.poll_interval = 1
c.ShoalSpawner.args = ["--allow-root"]
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.allow_named_servers = True
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.auth_token = "the-proxy-s-token"
c.Proxy.extra_routes = {{"/shoal/": {shoal!r}}}
"""


class Browser:
    """Keeps cookies, follows redirects, and knows what the hub wants to see of forms."""

    def __init__(self, at: str, user: str = "") -> None:
        self.at = at
        self.jar = http.cookiejar.CookieJar()
        if user:  # the stand-in for Shoal knows by it who sits there
            self.jar.set_cookie(http.cookiejar.Cookie(0, "fake-user", user, None, False, "127.0.0.1", True, False, "/", True, False, None, False, None, None, {}))
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def cookies(self) -> str:
        return "; ".join(f"{c.name}={c.value}" for c in self.jar)

    def get(self, path: str, data: Any = None, method: str = "GET", **headers: str) -> Tuple[int, str, str]:
        """Status, address in the end, and text."""
        request = urllib.request.Request(self.at + path if path.startswith("/") else path, data=data, method=method, headers=headers)
        try:
            with self.opener.open(request, timeout=PATIENCE) as r:
                return r.status, r.url, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.url or "", e.read().decode(errors="replace")

    def post(self, path: str, value: Any) -> Tuple[int, str, str]:
        xsrf = next((c.value or "" for c in self.jar if c.name == "_xsrf"), "")
        return self.get(path, json.dumps(value).encode(), "POST", **{"X-XSRFToken": xsrf, "Content-Type": "application/json", "Referer": self.at + "/hub/home"})

    def sign_in(self) -> Tuple[int, str, str]:
        return self.get("/hub/login?next=%2Fhub%2Fhome")


class Hub:
    """A hub and its proxy."""

    def __init__(self, shoal: str, sso: bool = True) -> None:
        self.dir = tempfile.mkdtemp(prefix="shoal-hub-")
        self.port, self.api, self.hub = (fakeshoal.hold_port() for _ in range(3))
        self.at = f"http://127.0.0.1:{self.port}"
        with open(os.path.join(self.dir, "token"), "w") as f:
            f.write(fakeshoal.TOKEN + "\n")
        with open(os.path.join(self.dir, "config.py"), "w") as f:
            f.write(CONFIG.format(shoal=shoal, sso=sso, port=self.port, api=self.api, hub=self.hub))
        self.log = open(os.path.join(self.dir, "log"), "ab")
        env = dict(os.environ, NODE_PATH="/usr/share/nodejs", CONFIGPROXY_AUTH_TOKEN="the-proxy-s-token")
        self.proxy = subprocess.Popen(["configurable-http-proxy", "--ip", "127.0.0.1", "--port", str(self.port), "--api-ip", "127.0.0.1", "--api-port", str(self.api)],
                                      env=env, stdout=self.log, stderr=self.log, start_new_session=True)  # fmt: skip
        self.start()

    def start(self) -> None:
        env = dict(os.environ, PYTHONPATH=HERE, PYTHONDONTWRITEBYTECODE="1")
        self.process = subprocess.Popen([sys.executable, "-m", "jupyterhub", "-f", "config.py"], cwd=self.dir, env=env, stdout=self.log, stderr=self.log, start_new_session=True)
        until = time.time() + PATIENCE
        while time.time() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if Browser(f"http://127.0.0.1:{self.hub}").get("/hub/health")[0] == 200 and Browser(self.at).get("/hub/api/")[0] == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("the hub does not start:\n" + self.tail())

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self) -> str:
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()[-5000:]

    def close(self) -> None:
        self.kill()
        os.killpg(self.proxy.pid, signal.SIGKILL)
        self.proxy.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


@contextlib.contextmanager
def hub(world: fakeshoal.World, sso: bool = True) -> Iterator[Hub]:
    with fakeshoal.serving(world) as shoal:
        h = Hub(shoal, sso)
        try:
            yield h
        except BaseException:
            print(h.tail(), file=sys.stderr)
            raise
        finally:
            h.close()


def cell(b: Browser, at: str, kernel: str, code: str) -> str:
    """What a cell prints, over the kernel's websocket."""
    from tornado.httpclient import HTTPRequest
    from tornado.ioloop import IOLoop
    from tornado.websocket import websocket_connect

    async def run() -> str:
        url = at.replace("http", "ws", 1) + f"api/kernels/{kernel}/channels"
        ws = await websocket_connect(HTTPRequest(url, headers={"Cookie": b.cookies()}, request_timeout=PATIENCE))
        message = {"header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex, "version": "5.3"}, "parent_header": {}, "metadata": {},
                   "channel": "shell", "content": {"code": code, "silent": False, "store_history": True, "allow_stdin": False}}  # fmt: skip
        await ws.write_message(json.dumps(message))
        text = ""
        while True:
            heard = await ws.read_message()
            if heard is None:
                raise AssertionError(f"the websocket was closed: {ws.close_code} {ws.close_reason}")
            answer = json.loads(heard)
            if answer["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if answer["msg_type"] == "stream":
                text += answer["content"]["text"]
            if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                ws.close()
                return text

    return str(IOLoop(make_current=False).run_sync(run, timeout=PATIENCE))


@unittest.skipUnless(READY, "jupyterhub, notebook and configurable-http-proxy are not installed: scripts/setup test")
class Live(unittest.TestCase):
    def wait(self, what: str, until: Any, seconds: float = PATIENCE) -> Any:
        end = time.time() + seconds
        while time.time() < end:
            found = until()
            if found:
                return found
            time.sleep(0.1)
        self.fail(f"waited in vain: {what}")

    def test_login_start_cell_restart(self) -> None:
        world = fakeshoal.World()
        with hub(world) as h:
            alice = Browser(h.at, "alice")
            status, url, text = alice.sign_in()
            self.assertEqual((status, url), (200, h.at + "/hub/home"), text)

            # While it waits for a machine, the page hears why.
            world.hold.set()
            status, url, text = alice.get("/hub/spawn")
            self.assertIn("/hub/spawn-pending/alice", url)
            heard = ""
            request = urllib.request.Request(h.at + "/hub/api/users/alice/server/progress", headers={"Referer": h.at + "/hub/home"})
            with alice.opener.open(request, timeout=PATIENCE) as progress:
                for line in progress:
                    heard += line.decode()
                    if "pool lab has no machine: one is being made" in heard:
                        world.hold.clear()
            self.assertIn('"ready": true', heard)
            self.assertFalse(world.hold.is_set(), heard)

            # What the machine is told has no secret in its command, and the rest in the environment.
            order = world.orders["a-1"]
            self.assertNotIn(order["env"]["JUPYTERHUB_API_TOKEN"], order["command"])
            self.assertNotIn("PATH", order["env"])
            self.assertEqual((order["user"], order["pool"], order["baseURL"], order["ready"]["path"]), ("alice", "lab", "/user/alice/", "api"))

            # A cell.
            status, url, text = alice.get("/user/alice/tree")
            self.assertEqual(status, 200, text)
            status, _, text = alice.post("/user/alice/api/kernels", {"name": "python3"})
            self.assertEqual(status, 201, text)
            kernel = json.loads(text)["id"]
            at = h.at + "/user/alice/"
            self.assertEqual(cell(alice, at, kernel, "x = 42; import os; print(os.environ['HOME'])"), os.path.join(world.homes.name, "alice") + "\n")
            self.no_databases_at_home(world, alice, at, kernel)

            # Its use is told.
            self.wait("activity", lambda: [a for _, a in world.activities if a["kernels"] == 1 and a.get("lastActivity")])

            # The hub dies and comes back, while Shoal does not know: the server lives, and so does x.
            h.kill()
            world.apps["a-1"]["unknown"] = True
            h.start()
            time.sleep(2)
            world.apps["a-1"]["unknown"] = False
            self.wait("the server is known", lambda: json.loads(alice.get("/hub/api/users/alice", **{"Referer": h.at + "/hub/home"})[2]).get("server"))
            self.assertEqual(cell(alice, at, kernel, "print(x)"), "42\n")
            self.assertEqual(list(world.apps), ["a-1"])
            self.assertNotIn("DELETE /api/v1/apps/a-1", world.requests)

            # A Shoal that is away for a while ends nothing.
            world.away = (502, b"<html>a proxy's page</html>")
            time.sleep(3)
            world.away = None
            self.assertEqual(cell(alice, at, kernel, "print(x)"), "42\n")

            # Nobody else gets in, and a code counts only where it was asked for.
            bob = Browser(h.at, "bob")
            bob.sign_in()
            self.assertEqual(bob.get("/user/alice/api/kernels")[0], 403)
            world.codes["stolen"] = ("alice", "/hub/shoal-callback", "s")
            self.assertEqual(bob.get("/hub/shoal-callback?code=stolen&state=s")[0], 403)
            self.assertIn("stolen", world.codes)
            self.assertEqual(Browser(h.at).get("/hub/login", b"username=alice&password=correct+horse", "POST", Referer=h.at + "/hub/login")[1], h.at + "/hub/login")

            # Who is disabled is out, with her tokens.
            token = json.loads(bob.post("/hub/api/users/bob/tokens", {})[2])["token"]
            me = {"Authorization": "token " + token}
            self.assertEqual(Browser(h.at).get("/hub/api/user", **me)[0], 200)
            world.users["bob"]["disabled"] = True
            time.sleep(1.5)
            self.assertEqual(Browser(h.at).get("/hub/api/user", **me)[0], 403)
            self.assertNotEqual(bob.get("/hub/home")[1], h.at + "/hub/home")

            # Stop it; it dies by itself.
            self.assertIn(alice.get("/hub/api/users/alice/server", None, "DELETE", Referer=h.at + "/hub/home")[0], (202, 204))
            self.wait("the end", lambda: world.apps["a-1"]["state"] != "running")
            alice.get("/hub/spawn")
            self.wait("another", lambda: world.apps.get("a-2", {}).get("state") == "running")
            os.killpg(world.processes["a-2"].pid, signal.SIGKILL)
            self.wait("it is missed", lambda: not json.loads(alice.get("/hub/api/users/alice", **{"Referer": h.at + "/hub/home"})[2]).get("server"))

    def no_databases_at_home(self, world: fakeshoal.World, b: Browser, at: str, kernel: str) -> None:
        """Databases of histories and signatures break on network shares (they lock files there)."""
        notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        status, _, text = b.get("/user/alice/api/contents/work.ipynb", json.dumps({"type": "notebook", "content": notebook}).encode(), "PUT",
                                **{"X-XSRFToken": next(c.value or "" for c in b.jar if c.name == "_xsrf"), "Content-Type": "application/json"})  # fmt: skip
        self.assertEqual(status, 201, text)
        local = os.path.join(world.homes.name, "local", f"jupyter-{os.getuid()}")
        history = os.path.join(local, "ipython", "profile_default", "history.sqlite")
        self.wait("history", lambda: os.path.exists(history) and sqlite3.connect(history).execute("select count(*) from sessions").fetchone()[0])
        self.assertTrue(os.path.exists(os.path.join(local, "nbsignatures.db")))
        home = os.path.join(world.homes.name, "alice")
        self.assertTrue(os.path.exists(os.path.join(home, "work.ipynb")))
        found = [os.path.join(d, f) for d, _, files in os.walk(home) for f in files]
        self.assertEqual([f for f in found if "sqlite" in f or f.endswith((".db", ".db-journal")) or "/runtime/" in f], [], found)
        self.assertEqual(cell(b, at, kernel, "import os; print(os.environ['XDG_CACHE_HOME'])"), os.path.join(local, "cache") + "\n")

    def test_password_form_for_a_hub_elsewhere(self) -> None:
        world = fakeshoal.World()
        world.run = False
        world.users["mallory"] = {"name": "mallory", "disabled": True}
        world.passwords["mallory"] = "also right"
        with hub(world, sso=False) as h:
            for name, password, ok in (("alice", "wrong", False), ("Alice", "correct horse", True), ("mallory", "also right", False), ("a/../b", "x", False), ("ällice", "x", False)):
                b = Browser(h.at)
                form = urllib.parse.urlencode({"username": name, "password": password}).encode()
                status, url, text = b.get("/hub/login?next=%2Fhub%2Fhome", form, "POST", Referer=h.at + "/hub/login")
                self.assertEqual(url.endswith("/hub/home"), ok, (name, status, url))
                self.assertLess(status, 500)
            self.assertEqual([r for r in world.requests if "a%2F" in r or ".." in r], [])


if __name__ == "__main__":
    unittest.main()
