"""The API over http.client: where the server is, who asks, and what is tried again."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from datetime import datetime
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional

from ._version import VERSION
from .errors import (
    DeniedError,
    InternalError,
    InvalidError,
    ShoalError,
    UnauthenticatedError,
    UnavailableError,
    from_problem,
    from_status,
)

DEFAULT_SERVER = "http://127.0.0.1:7420"
MACHINE_SOCKET = "/run/shoal.sock"
DATA_DIR = "/var/lib/shoal"

CONNECT = 10.0  # seconds
ANSWER = 75.0  # seconds: longer than the server holds a wait open
SHORT = 2.0  # seconds that a plain call is repeated
PATIENCE = 300.0  # seconds that a wait or a stream outlasts a server that is away
MAX_PROBLEM = 1 << 20


class Target(NamedTuple):
    """A server and what opens it: ``socket`` or ``server`` is set."""

    server: str = ""
    token: str = ""
    socket: str = ""


def server_url(text: str) -> str:
    """Brings what people write for a server into one form.

    >>> server_url("pool.example"), server_url("https://pool.example/")
    ('http://pool.example:7420', 'https://pool.example')
    """
    u = urllib.parse.urlsplit(text if "://" in text else "http://" + text)
    try:
        host, port = u.hostname, u.port
    except ValueError:
        host, port = None, None
    if u.scheme not in ("http", "https") or not host or u.query or "@" in u.netloc:
        raise InvalidError(f"cannot use {text!r} as a server", f"write a URL such as {DEFAULT_SERVER}")
    if ":" in host:
        host = f"[{host}]"
    if port is None and u.scheme == "http":
        port = 7420
    return f"{u.scheme}://{host}{'' if port is None else f':{port}'}{u.path.rstrip('/')}"


def stored_logins(env: Mapping[str, str]) -> Dict[str, Any]:
    """What ``shoal login`` stored; nothing stored is no error."""
    base = env.get("XDG_CONFIG_HOME") or (os.path.join(env["HOME"], ".config") if env.get("HOME") else "")
    path = os.path.join(base, "shoal", "logins.json")
    if not base or not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        if not isinstance(found, dict) or not isinstance(found.get("servers") or {}, dict):
            raise ValueError("it is no list of logins")
    except (OSError, ValueError) as e:
        raise InvalidError(f"cannot read the stored logins in {path}: {e}", "remove the file and log in again with `shoal login`") from e
    return found


def _stored_token(logins: Mapping[str, Any], server: str) -> str:
    login = (logins.get("servers") or {}).get(server) or {}
    expires = instant(login.get("expires"))
    if expires is not None and expires < time.time():
        raise UnauthenticatedError(f"cannot use the login at {server}: it has expired", f"log in again with `shoal login {server}`")
    return str(login.get("token") or "")


def instant(text: Any) -> Optional[float]:
    """Seconds since 1970 of an instant as the server writes it (RFC 3339, up to nanoseconds); None for none.

    >>> instant("1970-01-02T00:00:01.5Z"), instant("1970-01-01T02:00:00+02:00"), instant("")
    (86401.5, 0.0, None)
    """
    m = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", str(text or ""))
    if not m:
        return None
    zone = "+00:00" if m.group(3) == "Z" else m.group(3)
    return datetime.fromisoformat(m.group(1) + zone).timestamp() + float(m.group(2) or 0)


def _given_token(env: Mapping[str, str], token_file: str) -> str:
    if not token_file:
        return env.get("SHOAL_TOKEN", "").strip()
    try:
        with open(token_file, encoding="utf-8") as f:
            token = f.read().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidError(f"cannot read the token: {e}") from e
    if not token or any(c.isspace() for c in token):
        raise InvalidError(f"cannot use {token_file}: it holds no token", "a token is one word; the server's own is in DIR/admin.token")
    return token


def find_target(server: str = "", token: str = "", token_file: str = "", env: Optional[Mapping[str, str]] = None,
                machine_socket: str = MACHINE_SOCKET, data_dir: str = DATA_DIR) -> Target:  # fmt: skip
    """Finds the server as the command line does: what was given, then the environment, then the machine's own socket,
    then the stored login, then the server of this host."""
    env = os.environ if env is None else env
    token = token or _given_token(env, token_file)
    given = server or env.get("SHOAL_SERVER", "")
    if given:
        url = server_url(given)
        return Target(url, token or _stored_token(stored_logins(env), url))
    data = env.get("SHOAL_DATA", "")
    if data:
        if token:
            raise InvalidError("cannot use a token with SHOAL_DATA, whose socket takes none", "say which server the token is for with SHOAL_SERVER, or leave the token out")
        return Target(socket=os.path.join(data, "shoal.sock"))
    if not token and os.path.exists(machine_socket):
        return Target(socket=machine_socket)
    logins = stored_logins(env)
    current = str(logins.get("current") or "")
    if current:
        return Target(current, token or _stored_token(logins, current))
    if token:
        return Target(DEFAULT_SERVER, token)
    own = os.path.join(data_dir, "shoal.sock")
    if os.path.exists(own):
        return Target(socket=own)
    raise UnavailableError("cannot tell where the server is: none runs here and no login is stored",
                           "log in with `shoal login URL`, or set SHOAL_SERVER and SHOAL_TOKEN; Pool(\"local\") needs no server")  # fmt: skip


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("shoal", timeout=CONNECT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT)
        try:
            self.sock.connect(self.path)
        except BaseException:
            self.sock.close()
            raise


class Client:
    """A client of one server. Its methods may be called from any thread; each thread has a connection of its own."""

    def __init__(self, target: Target, user: str = "") -> None:
        self.target = target
        self.where = target.socket or target.server
        self.user = user
        self._local = threading.local()
        self._reached = False

    # ---- one request

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        u = urllib.parse.urlsplit(self.target.server)
        if self.target.socket:
            connection = _UnixConnection(self.target.socket)
        elif u.scheme == "https":
            connection = http.client.HTTPSConnection(u.hostname or "", u.port, timeout=CONNECT, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(u.hostname or "", u.port, timeout=CONNECT)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        connection.sock.settimeout(timeout)
        return connection

    def _path(self, path: str, query: Optional[Mapping[str, Any]]) -> str:
        base = "" if self.target.socket else urllib.parse.urlsplit(self.target.server).path
        words = {k: "true" if v is True else v for k, v in (query or {}).items() if v not in (None, "", False)}
        return base + "/api/v1" + path + ("?" + urllib.parse.urlencode(words) if words else "")

    def _headers(self, key: str, body: bool) -> Dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"shoal-python/{VERSION}"}
        if self.target.token:
            headers["Authorization"] = "Bearer " + self.target.token
        if self.user:
            headers["Shoal-As"] = self.user
        if key:
            headers["Idempotency-Key"] = key
        if body:
            headers["Content-Type"] = "application/json"
        return headers

    def _send(self, connection: http.client.HTTPConnection, method: str, path: str, body: Optional[bytes], key: str) -> http.client.HTTPResponse:
        connection.request(method, path, body=body, headers=self._headers(key, body is not None))
        response = connection.getresponse()
        if response.status < 300:
            self._reached = True
            return response
        text = response.read(MAX_PROBLEM)
        try:
            problem = json.loads(text)
        except (ValueError, RecursionError):
            problem = None
        if isinstance(problem, dict) and problem.get("kind"):
            self._reached = True
            raise from_problem(problem)
        raise from_status(response.status, self.where, response.reason)

    def _broken(self, e: BaseException) -> ShoalError:
        if isinstance(e, PermissionError):
            return DeniedError(f"cannot use the socket {self.where}: it is not yours to open", "use sudo, or log in as yourself with `shoal login`")
        if isinstance(e, ssl.SSLCertVerificationError):
            return UnavailableError(f"cannot trust the server at {self.where}: {e.verify_message}", "SSL_CERT_FILE names the certificates to be trusted")
        if not self._reached:
            return UnavailableError(f"cannot reach the server at {self.where}: {e}", "is it running, and is the address right? SHOAL_SERVER names another")
        return UnavailableError(f"the connection to the server at {self.where} broke: {e}", "try again; what was asked for may have happened")

    def once(self, method: str, path: str, query: Optional[Mapping[str, Any]] = None, body: Any = None, key: str = "",
             repeat: bool = False, raw: bool = False) -> Any:  # fmt: skip
        """Sends one request and returns the answer: the JSON value, or bytes with ``raw``."""
        data = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        target = self._path(path, query)
        # A connection that lay idle may be closed by now, which shows only when it is used.
        kept = self._take() if repeat or key or method == "GET" else None
        connection = kept
        try:
            while True:
                if connection is None:
                    connection, kept = self._connect(ANSWER), None
                try:
                    response = self._send(connection, method, target, data, key)
                    break
                except (OSError, http.client.HTTPException):
                    connection.close()
                    connection = None
                    if kept is None:
                        raise
            text = response.read()
        except (OSError, http.client.HTTPException) as e:
            if connection is not None:
                connection.close()
            raise self._broken(e) from e
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._keep(connection, response)
        if raw:
            return text
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as e:
            raise InternalError(f"cannot read the answer of the server at {self.where}", "is it a Shoal server of this version?") from e

    def _take(self) -> Optional[http.client.HTTPConnection]:
        kept: Optional[http.client.HTTPConnection] = getattr(self._local, "connection", None)
        own = getattr(self._local, "pid", None) == os.getpid()  # after a fork it is the parent's
        self._local.connection = None
        return kept if own else None

    def _keep(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        if response.will_close or self._local_connection():
            connection.close()
        else:
            self._local.connection, self._local.pid = connection, os.getpid()

    def _local_connection(self) -> Optional[http.client.HTTPConnection]:
        found: Optional[http.client.HTTPConnection] = getattr(self._local, "connection", None)
        return found

    # ---- with patience

    def call(self, method: str, path: str, query: Optional[Mapping[str, Any]] = None, body: Any = None, key: str = "",
             repeat: bool = False, raw: bool = False, patience: float = SHORT) -> Any:  # fmt: skip
        """Sends a request; where it may be sent twice (GET, with a key, or ``repeat``) it is repeated for ``patience``
        seconds while a server that has answered before is away."""
        again = Patience(self, patience)
        while True:
            try:
                return self.once(method, path, query, body, key, repeat, raw)
            except ShoalError as e:
                if not (method == "GET" or key or repeat) or not again.after(e):
                    raise

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, query)

    def pages(self, path: str, limit: int = 0, **query: Any) -> Iterator[Dict[str, Any]]:
        """The objects of a list, page by page; at most ``limit``, 0 means all."""
        sent = 0
        while True:
            page = self.call("GET", path, dict(query, limit=min(limit - sent, 1000) if limit else None))
            for item in page["items"]:
                yield item
                sent += 1
                if limit and sent >= limit:
                    return
            if not page.get("next") or page["next"] == query.get("cursor"):
                return
            query["cursor"] = page["next"]

    def stream(self, path: str, query: Mapping[str, Any], offset: int = 0) -> Iterator[bytes]:
        """Bytes from an offset to the true end, over restarts of the server without a lost or doubled one.

        A request of its own connection; closing the iterator ends it.
        """
        again = Patience(self, PATIENCE)
        while True:
            connection = self._connect(ANSWER * 4)
            try:
                response = self._send(connection, "GET", self._path(path, dict(query, offset=offset or None)), None, "")
                while True:
                    data = response.read1(1 << 16)
                    if not data:
                        if not _whole(response):
                            raise http.client.IncompleteRead(b"")
                        return
                    offset += len(data)
                    again.reset()
                    yield data
            except socket.timeout:
                continue  # nothing was written for minutes: it may be so, or the connection may be dead
            except ShoalError as e:
                if not again.after(e):
                    raise
            except (OSError, http.client.HTTPException) as e:
                if not again.after(self._broken(e)):
                    raise self._broken(e) from e
            finally:
                connection.close()

    def close(self) -> None:
        """Drops this thread's connection."""
        connection = self._take()
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_local"):
            self.close()


def _whole(response: http.client.HTTPResponse) -> bool:
    """Whether a body that has ended has ended where it should."""
    return response.length in (None, 0)


class Patience:
    """Whether and when to try again."""

    def __init__(self, client: Client, limit: float) -> None:
        self.client, self.limit = client, limit
        self.reset()

    def reset(self) -> None:
        self.since: Optional[float] = None
        self.pause = 0.1

    def after(self, e: ShoalError) -> bool:
        """Waits a little after an error and says whether to try again."""
        if not isinstance(e, UnavailableError) or not self.client._reached:
            return False
        now = time.monotonic()
        if self.since is None:
            self.since = now
        if now - self.since >= self.limit:
            return False
        time.sleep(self.pause * (0.5 + random.random()))
        self.pause = min(self.pause * 2, 2.0)
        return True


def new_key() -> str:
    """A key that makes a submission safe to repeat."""
    return uuid.uuid4().hex


def quote(*parts: Any) -> str:
    """Joins the parts of a path, escaped.

    >>> quote("jobs", "a/b", "wait")
    '/jobs/a%2Fb/wait'
    """
    return "".join("/" + urllib.parse.quote(str(p), safe="") for p in parts)

