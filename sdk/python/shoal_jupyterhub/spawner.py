"""A notebook server that is an app of its user's, on the machine where the rest of her is."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import math
import random
import re
import time
from datetime import datetime, timezone
from typing import Any, AsyncIterator, Dict, List, Mapping, Optional, Tuple

from jupyterhub.spawner import Spawner
from tornado.httpclient import HTTPClientError
from traitlets import Bool, Unicode, default

from ._api import WAIT, Census, Client, Shoal, ShoalError
from ._command import command

ENDED = ("ended", "failed")
RETRY = 2.0  # seconds between two tries to reach Shoal
READY = 300  # seconds that a server has to come up, once it has a machine
STOPPING = 90.0  # seconds that a server is given to end
REPORT = 60.0  # seconds between two looks at its kernels
TOKEN_LIFE = 3600  # seconds, of a token for these looks
FOR_EVER = 10**8  # seconds
AGENT = "http://127.0.0.1:599"  # where machines elsewhere find the hub's API: their agent asks for them
UNITS = {"": 1, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}

# What belongs to the hub's own environment and not to a machine's.
HUBS_OWN = ("PATH", "PYTHONPATH", "CONDA_ROOT", "CONDA_DEFAULT_ENV", "VIRTUAL_ENV", "HOME", "USER", "SHELL", "JPY_API_TOKEN")


def size(text: Any) -> float:
    """A number, or an amount as people write it.

    >>> size("4"), size("8GiB") == 8 * 2**30, size("512M") == 512 * 2**20, size(1.5)
    (4.0, True, True, 1.5)
    """
    m = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?\s*", str(text), re.I)
    if not m:
        raise ValueError(f"cannot read {text!r} as an amount: write it as in 4 or 8GiB")
    unit = UNITS[m.group(2).upper()]
    return float(m.group(1)) * (2**unit if unit > 1 else 1)


def offered(pool: Mapping[str, Any]) -> str:
    """What the pool's machines have, for people.

    >>> offered({"machine": {"cpus": 4, "memory": "16GiB", "gpus": 1}})
    '4 CPUs, 16GiB, 1 GPU'
    """
    machine = pool.get("machine") or {}

    def count(key: str, word: str) -> str:
        n = machine.get(key)
        return f"{n} {word}{'' if n == 1 else 's'}" if n else ""

    return ", ".join(p for p in (count("cpus", "CPU"), str(machine.get("memory") or ""), count("gpus", "GPU")) if p)


def fits(pool: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the pool's machines have what is asked for.

    >>> lab = {"machine": {"cpus": 4, "memory": "16GiB"}}
    >>> fits(lab, {"cpus": 4}), fits(lab, {"memory": "32GiB"}), fits(lab, {"gpus": 1}), fits(lab, {})
    (True, False, False, True)
    """
    machine = pool.get("machine") or {}
    return all(size(machine.get(k) or 0) >= size(wanted[k]) for k in ("cpus", "memory", "gpus") if wanted.get(k))


def app_name(name: str) -> str:
    """Shoal's name for a named server. People write anything there.

    >>> app_name(""), app_name("exam-2"), app_name("Zweiter Server")
    ('', 'exam-2', 'Zweiter-Server-9bd96558')
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}|", name):
        return name
    return (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:20] or "server") + "-" + hashlib.sha256(name.encode()).hexdigest()[:8]


class ShoalSpawner(Spawner):
    """Starts, watches and ends the server through Shoal's API."""

    pool = Unicode(help="The pool to start servers in; default: the default pool if it has the endpoint, else the user's choice.").tag(config=True)
    endpoint = Unicode("jupyter", help="The pool's endpoint that servers belong to.").tag(config=True)
    local_scratch = Bool(True, help="Put histories, caches and databases on the machine's own disk in place of the home.").tag(config=True)

    @default("start_timeout")
    def _start_timeout_default(self) -> int:
        return 1200  # a machine may have to be made first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = ""  # Shoal's id of it
        self._seen: Dict[str, Any] = {}  # the app as it was last seen
        self._told: List[Dict[str, Any]] = []  # progress so far
        self._reported = float(-FOR_EVER)
        self._reporting: Optional["asyncio.Task[None]"] = None
        self._key: Tuple[str, float] = ("", 0.0)
        self._patience: Optional[int] = None  # http_timeout while that is put aside

    @default("poll_interval")
    def _poll_interval_default(self) -> int:
        return 10  # all servers are looked at with one request

    @default("options_form")
    def _options_form_default(self) -> Any:
        return lambda spawner: spawner.choice()

    @default("env_keep")
    def _env_keep_default(self) -> List[str]:
        return ["JUPYTERHUB_SINGLEUSER_APP"]

    @property
    def _shoal(self) -> Shoal:
        return Shoal(config=self.config)

    # ---- which pool

    async def pools(self) -> List[Dict[str, Any]]:
        """The pools that servers can be started in, the default one first."""
        found = (await self._shoal.call("GET", "/pools"))["items"]
        having = [p for p in found if any(e.get("name") == self.endpoint for e in p.get("endpoints") or ()) and not p.get("deleting")]
        return sorted(having, key=lambda p: (not p.get("default"), p["name"]))

    async def choice(self) -> str:
        """The form that asks for a pool; none where there is nothing to choose."""
        if self.pool:
            return ""
        pools = await self.pools()
        if len(pools) < 2:
            return ""
        last = (self.user_options or {}).get("pool")
        rows = []
        for p in pools:
            checked = " checked" if p["name"] == (last or pools[0]["name"]) else ""
            name, has = html.escape(str(p["name"]), quote=True), html.escape(offered(p))
            rows.append(f'<div class="radio"><label><input type="radio" name="pool" value="{name}"{checked}> <strong>{name}</strong> {has}</label></div>')
        return '<div class="form-group"><p>Where to run it:</p>' + "".join(rows) + "</div>"

    def options_from_form(self, form: Mapping[str, List[str]]) -> Dict[str, str]:
        """What was chosen: a pool, or what a machine must have."""
        return {k: str(form[k][0]).strip() for k in ("pool", "cpus", "memory", "gpus") if form.get(k) and str(form[k][0]).strip()}

    async def _place(self) -> Dict[str, Any]:
        options = self.user_options or {}
        chosen = options.get("pool") or self.pool
        pools = await self.pools()
        if not pools:
            raise ShoalError("notFound", f"no pool has an endpoint named {self.endpoint}", "an administrator adds one to the pool's document")
        if chosen:
            found = [p for p in pools if p["name"] == chosen]
            if not found:
                raise ShoalError("invalid", f"cannot start a server in pool {str(chosen)[:64]!r}: it is no pool for notebooks", "choose one of " + ", ".join(p["name"] for p in pools))
            return found[0]
        try:
            fitting = [p for p in pools if fits(p, options)]
        except ValueError as e:
            raise ShoalError("invalid", str(e)) from e
        if not fitting:
            raise ShoalError("invalid", "no pool has machines as large as is asked for", "; ".join(f"{p['name']}: {offered(p)}" for p in pools))
        return fitting[0]

    # ---- start

    def get_env(self) -> Dict[str, str]:
        env = super().get_env()
        for name in HUBS_OWN:
            if name not in self.environment:
                env.pop(name, None)
        env.pop("JUPYTERHUB_SERVICE_URL", None)  # the machine chooses the port
        return {k: str(v) for k, v in env.items()}

    def _env(self, pool: Mapping[str, Any]) -> Dict[str, str]:
        """The environment on a machine of a pool. Those on this host come to the hub by the host's own network."""
        usual = self.hub_connect_url
        if pool.get("provider", "local") != "local":
            self.hub_connect_url = AGENT
        try:
            return self.get_env()
        finally:
            self.hub_connect_url = usual

    def _base(self) -> str:
        base = self.server.base_url if self.server else "/"
        return str(base if base.endswith("/") else base + "/")

    async def _open(self) -> Dict[str, Any]:
        if self.internal_ssl:
            raise ShoalError("invalid", "cannot start a server with internal_ssl", "leave c.JupyterHub.internal_ssl out: Shoal guards the way to the server itself")
        pool = await self._place()
        request = {
            "pool": pool["name"], "endpoint": self.endpoint, "name": app_name(self.name), "user": self.user.name,
            "command": command([*self.cmd, *self.get_args()], self.local_scratch), "env": self._env(pool), "baseURL": self._base(),
            "ready": {"path": "api", "timeout": f"{READY}s"},
        }  # fmt: skip
        until = time.time() + self.start_timeout
        while True:
            status, app = await self._patiently(request, until)
            if status == 201:
                return dict(app)
            # One of hers that is not of this start: it has another token, so nobody would get in.
            self.log.warning("ending %s, which this hub knows nothing of, for a new server of %s", app["id"], self.user.name)
            await self._end(app["id"], until)

    async def _patiently(self, request: Mapping[str, Any], until: float) -> Tuple[int, Dict[str, Any]]:
        while True:
            try:
                found: Tuple[int, Dict[str, Any]] = await self._shoal.send("POST", "/apps", request)
                return found
            except ShoalError as e:
                if not e.unknown or time.time() > until:
                    raise
                self._told.append({"message": e.message})
                await asyncio.sleep(RETRY)

    async def start(self) -> Tuple[str, int]:
        self._told.clear()
        self._seen = {}
        if self._patience is not None:
            self.http_timeout, self._patience = self._patience, None
        app = await self._open()
        self.app = app["id"]
        await self._keep()
        while app["state"] not in ("running", *ENDED):
            self._tell(app)
            app = await self._next(app)
        self._seen = app
        if app["state"] in ENDED:
            raise ShoalError("unavailable", _why(app))
        self._told.append({"progress": 90, "message": f"The server runs on machine {app.get('machine', '?')}"})
        return _address(app)

    async def _keep(self) -> None:
        """Puts the id on record at once: a hub that dies now finds the app again."""
        try:
            self.orm_spawner.state = self.get_state()
            self.user.db.commit()
        except AttributeError:  # in tests there is no database
            pass

    async def _next(self, app: Mapping[str, Any]) -> Dict[str, Any]:
        """The app once it has changed. The hub itself gives up after start_timeout."""
        try:
            found: Dict[str, Any] = await self._shoal.call("GET", f"/apps/{app['id']}/wait", timeout=WAIT, rev=app.get("rev", 0))
            return found
        except ShoalError as e:
            if not e.unknown:
                raise
            await asyncio.sleep(RETRY)
            return dict(app)

    def _tell(self, app: Mapping[str, Any]) -> None:
        text = app.get("progress") or app.get("reason") or {"waiting": "Waiting for a machine", "starting": "The server is starting"}[app["state"]]
        done = 60 if app["state"] == "starting" else min(10 + 5 * len(self._told), 50)
        if not self._told or self._told[-1]["message"] != text:
            self._told.append({"progress": done, "message": str(text)})

    async def progress(self) -> AsyncIterator[Dict[str, Any]]:
        """What happens until the server runs; the hub ends it."""
        sent = 0
        while True:
            for event in self._told[sent:]:
                sent += 1
                yield event
            await asyncio.sleep(0.2)

    # ---- while it runs

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.app = str(state.get("app") or "")
        self._reported = time.monotonic() - random.random() * REPORT  # not all at once when a hub comes back

    def get_state(self) -> Dict[str, Any]:
        state: Dict[str, Any] = super().get_state()
        if self.app:
            state["app"] = self.app
        return state

    def clear_state(self) -> None:
        super().clear_state()
        self.app, self._seen = "", {}

    async def get_url(self) -> str:
        """Where the server is, asked by a hub that has just come back: it may answer at another port."""
        if self._seen.get("state") == "running" and self._seen.get("address"):
            host, port = _address(self._seen)
            return f"http://{'[' + host + ']' if ':' in host else host}:{port}{self._base()}"
        found: str = await super().get_url()
        return found

    async def poll(self) -> Optional[int]:
        """None while it runs, and also while nobody knows: a server is only given up when Shoal says that it has ended."""
        if not self.app:
            return 0
        checking = getattr(self, "_check_pending", False)
        if checking:
            # A hub that has just come back ends servers that do not answer it within http_timeout. They are to live.
            self._patience = self.http_timeout if self._patience is None else self._patience
            self.http_timeout = FOR_EVER
        while True:
            status, known = await self._look()
            if known or not checking:
                return status
            await asyncio.sleep(RETRY)

    async def _look(self) -> Tuple[Optional[int], bool]:
        """The exit code, None while it runs, and whether that is known."""
        try:
            # What ended is not among those that live, and has to be asked for.
            app = await Census.of(self._shoal).find(self._shoal, self.app) or await self._shoal.call("GET", f"/apps/{self.app}")
        except ShoalError as e:
            if e.kind == "notFound":
                return 0, True
            self.log.warning("cannot look at the server of %s, so it is taken to run: %s", self.user.name, e)
            return None, False
        self._seen = app
        if app["state"] in ENDED:
            self.log.warning("the server of %s has ended: %s", self.user.name, _why(app))
            return int(app.get("exitCode") or (1 if app["state"] == "failed" else 0)), True
        if app.get("unknown"):
            return None, False
        if app["state"] == "running":
            self._watch(app)
            return None, True
        return None, not getattr(self, "_check_pending", False)

    async def stop(self, now: bool = False) -> None:
        if not self.app:
            return
        if getattr(self, "_check_pending", False):
            raise ShoalError("unavailable", f"the server of {self.user.name} is not ended because it did not answer a hub that has just come back")
        await self._end(self.app, time.time() + (STOPPING / 3 if now else STOPPING))
        self.clear_state()

    async def _end(self, app: str, until: float) -> None:
        """Ends an app, and waits until it is over. Shoal being away does not make it a success."""
        rev, asked = 0, False
        while True:
            try:
                if not asked:
                    await self._shoal.call("DELETE", f"/apps/{app}")
                    asked = True
                found = await self._shoal.call("GET", f"/apps/{app}/wait", timeout=WAIT, rev=rev)
                if found["state"] in ENDED:
                    return
                rev = found.get("rev", 0)
            except ShoalError as e:
                if e.kind == "notFound":
                    return
                if not e.unknown or time.time() > until:
                    raise
                await asyncio.sleep(RETRY)
            if time.time() > until:
                raise ShoalError("unavailable", f"the server of {self.user.name} does not end", "its machine may not answer; try again")

    # ---- how it is used

    def _watch(self, app: Mapping[str, Any]) -> None:
        """Begins a look at its kernels, now and then. It never holds up the hub."""
        now = time.monotonic()
        if now - self._reported < REPORT or (self._reporting and not self._reporting.done()):
            return
        self._reported = now
        self._reporting = asyncio.ensure_future(self._report(dict(app)))

    async def _report(self, app: Mapping[str, Any]) -> None:
        try:
            host, port = _address(app)
            at = f"http://{host}:{port}{self._base()}api/"
            kernels = await self._ask(at + "kernels")
            try:
                terminals = await self._ask(at + "terminals")
            except HTTPClientError as e:
                if e.code != 404:  # servers may have none
                    raise
                terminals = []
            status = await self._status(at + "status")
            await self._shoal.call("POST", f"/apps/{self.app}/activity", activity(kernels, terminals, time.time(), status))
        except Exception as e:  # the next look may succeed; unknown is not idle, so nothing is told
            self.log.debug("cannot look at the kernels of %s: %s", self.user.name, e)

    async def _ask(self, url: str) -> List[Dict[str, Any]]:
        found = await self._fetch(url)
        if not isinstance(found, list):
            raise ValueError("it is no list")
        return [f for f in found[:10000] if isinstance(f, dict)]

    async def _status(self, url: str) -> Dict[str, Any]:
        """What a server says of itself; nothing if it does not say."""
        try:
            found = await self._fetch(url)
        except (HTTPClientError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    async def _fetch(self, url: str) -> Any:
        # Such looks must not count as use.
        response = await Client().fetch(url + "?no_track_activity=1", headers={"Authorization": "token " + self._pass()}, request_timeout=10, follow_redirects=False)
        return json.loads(response.body[: 1 << 20])

    def _pass(self) -> str:
        """A token that opens this server alone, for an hour. The server's own is not known any more after a restart of the hub."""
        token, until = self._key
        if time.monotonic() < until:
            return token
        note, scope = "Shoal looks at kernels and terminals", f"access:servers!server={self.user.name}/{self.name}"
        try:
            token = self.user.new_api_token(note=note, expires_in=TOKEN_LIFE, scopes=[scope])
        except TypeError:  # hubs before 3.0 know no scopes of tokens
            token = self.api_token
        self._key = (token, time.monotonic() + TOKEN_LIFE - 300)
        return str(token)


def activity(kernels: List[Dict[str, Any]], terminals: List[Dict[str, Any]], now: float, status: Mapping[str, Any] = {}) -> Dict[str, Any]:
    """What Shoal is told: how many there are, and when one was last used. What is busy is used now.

    >>> activity([{"execution_state": "idle", "last_activity": "1970-01-01T00:01:40Z"}], [], 500.0)
    {'kernels': 1, 'terminals': 0, 'lastActivity': '1970-01-01T00:01:40Z'}
    >>> activity([{"execution_state": "busy"}], [{}], 500.0)["lastActivity"]
    '1970-01-01T00:08:20Z'

    Who edits files uses her server, which says so of itself:

    >>> activity([], [], 500.0, {"last_activity": "1970-01-01T00:01:40.5Z", "kernels": 0})
    {'kernels': 0, 'terminals': 0, 'lastActivity': '1970-01-01T00:01:40Z'}
    """
    told: Dict[str, Any] = {"kernels": len(kernels), "terminals": len(terminals)}
    used: List[float] = [_instant(k.get("last_activity")) or 0.0 for k in (*kernels, *terminals, status)]
    if any(k.get("execution_state") == "busy" for k in kernels):
        used.append(now)
    last = min(max(used, default=0), now)
    if last > 0:
        told["lastActivity"] = datetime.fromtimestamp(math.floor(last), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return told


def _instant(text: Any) -> Optional[float]:
    m = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?", str(text or ""))
    if not m:
        return None
    zone = "+00:00" if m.group(2) in (None, "Z") else m.group(2)
    try:
        return datetime.fromisoformat(m.group(1) + zone).timestamp()
    except ValueError:
        return None


def _address(app: Mapping[str, Any]) -> Tuple[str, int]:
    host, _, port = str(app.get("address") or "").rpartition(":")
    if not host or not port.isdigit():
        raise ShoalError("internal", f"the server runs, and Shoal does not say where (address {app.get('address')!r})")
    return host.strip("[]"), int(port)


def _why(app: Mapping[str, Any]) -> str:
    reason = str(app.get("reason") or f"it ended with exit code {app.get('exitCode') or 0}")
    log = str(app.get("log") or "").strip()
    return reason + (": " + log[-1000:] if log else "")
