"""The API of the Shoal server, for a hub: it must not block, and many servers start at once."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
import urllib.parse
import weakref
from typing import Any, Dict, Mapping, Optional, Tuple

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import HTTPError
from traitlets import Unicode
from traitlets.config import Configurable

CONNECT = 10.0  # seconds
ANSWER = 20.0
WAIT = 45.0  # longer than the server holds a wait open
AT_ONCE = 1000  # requests: each server that starts holds one
MAX_ANSWER = 8 << 20  # bytes


STATUS = {"invalid": 400, "unauthenticated": 403, "denied": 403, "notFound": 404, "conflict": 409, "exhausted": 409, "unreachable": 503, "unavailable": 503}


class ShoalError(HTTPError):
    """What went wrong, as the server says it; ``kind`` is "unreachable" where it could not be asked. The hub answers with
    the status and shows the text on its page of a failed start."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        self.kind, self.message, self.hint = kind, message, hint
        self.jupyterhub_message = message + (f" ({hint})" if hint else "")
        super().__init__(STATUS.get(kind, 500), self.jupyterhub_message)

    def __str__(self) -> str:
        return self.jupyterhub_message

    # The hub puts a word here when a start fails, and then shows a sentence of its own in place of the text.
    reason = property(lambda self: None, lambda self, word: None)

    @property
    def unknown(self) -> bool:
        """Nothing is known now; asking again may help."""
        return self.kind in ("unreachable", "unavailable", "internal", "rateLimited")


class Client(SimpleAsyncHTTPClient):
    """One for all that this package asks. Tornado's own sends ten requests at a time, and the hub needs it for its proxy."""

    def initialize(self, **kwargs: Any) -> None:  # type: ignore[override]
        super().initialize(max_clients=AT_ONCE, max_body_size=MAX_ANSWER, **kwargs)


class Shoal(Configurable):
    """Where the server is, and what opens it."""

    server = Unicode(help="The address of Shoal's API, as in https://pool.example.org:7443; default: $SHOAL_SERVER.").tag(config=True)
    token_file = Unicode(help="A file with the hub's token, readable to the hub alone; default: $SHOAL_TOKEN_FILE.").tag(config=True)
    ca_file = Unicode(help="Certificates to trust the server by, where the system does not; default: $SHOAL_CA_FILE.").tag(config=True)

    def _setting(self, value: str, variable: str) -> str:
        return value or os.environ.get(variable, "")

    def _url(self, path: str, query: Optional[Mapping[str, Any]]) -> str:
        server = self._setting(self.server, "SHOAL_SERVER").rstrip("/")
        u = urllib.parse.urlsplit(server)
        if u.scheme not in ("http", "https") or not u.hostname:
            raise ShoalError("invalid", f"cannot use {server!r} as the address of Shoal", "set c.Shoal.server, as in https://pool.example.org:7443")
        words = {k: v for k, v in (query or {}).items() if v not in (None, "")}
        return server + "/api/v1" + path + ("?" + urllib.parse.urlencode(words) if words else "")

    def _token(self) -> str:
        """Read anew each time: the file may be replaced."""
        path = self._setting(self.token_file, "SHOAL_TOKEN_FILE")
        if not path:
            raise ShoalError("invalid", "the hub has no token for Shoal", "c.Shoal.token_file names the file that holds it")
        try:
            with open(path, encoding="utf-8") as f:
                token = f.read(4096).strip()
        except (OSError, UnicodeDecodeError) as e:
            raise ShoalError("invalid", f"cannot read the hub's token: {e}") from e
        if not token or any(c.isspace() for c in token):
            raise ShoalError("invalid", f"cannot use {path}: it holds no token", "a token is one word")
        return token

    async def call(self, method: str, path: str, body: Any = None, token: bool = True, timeout: float = ANSWER, **query: Any) -> Any:
        """Sends one request; the answer's JSON value, or None for an empty one."""
        return (await self.send(method, path, body, token, timeout, **query))[1]

    async def send(self, method: str, path: str, body: Any = None, token: bool = True, timeout: float = ANSWER, **query: Any) -> Tuple[int, Any]:
        """Like call, with the status before it."""
        request = self._request(method, path, body, token, timeout, query)
        try:
            response = await Client().fetch(request)
        except HTTPClientError as e:
            if e.response is None or e.code == 599:
                raise ShoalError("unreachable", f"Shoal does not answer: {e.message or e}") from e
            raise _problem(e.code, e.response.body) from e
        except (OSError, ValueError) as e:  # refused, no such host, a certificate that is not trusted, no HTTP
            raise ShoalError("unreachable", f"Shoal cannot be reached: {e}", "is c.Shoal.server right, and does it run?") from e
        if not response.body:
            return response.code, None
        try:
            return response.code, json.loads(response.body)
        except (ValueError, RecursionError) as e:
            raise ShoalError("internal", f"cannot read Shoal's answer to {method} {path}") from e

    def _request(self, method: str, path: str, body: Any, token: bool, timeout: float, query: Mapping[str, Any]) -> HTTPRequest:
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = "Bearer " + self._token()
        data = None
        if body is not None:
            data = json.dumps(body, allow_nan=False).encode()
            headers["Content-Type"] = "application/json"
        extra: Dict[str, Any] = {}
        ca = self._setting(self.ca_file, "SHOAL_CA_FILE")
        if ca:
            try:
                extra["ssl_options"] = ssl.create_default_context(cafile=ca)
            except (OSError, ssl.SSLError) as e:
                raise ShoalError("invalid", f"cannot use {ca} to trust Shoal by: {e}") from e
        return HTTPRequest(self._url(path, query), method=method, headers=headers, body=data, follow_redirects=False,
                           allow_nonstandard_methods=True, connect_timeout=CONNECT, request_timeout=timeout, **extra)  # fmt: skip


class Census:
    """All apps that live, asked for once for all servers of a hub that look at the same time."""

    FRESH = 3.0  # seconds
    all: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Dict[str, Census]]" = weakref.WeakKeyDictionary()

    @classmethod
    def of(cls, shoal: Shoal) -> "Census":
        """The one of this event loop, which is one for a hub."""
        return cls.all.setdefault(asyncio.get_running_loop(), {}).setdefault(shoal.server, cls())

    def __init__(self) -> None:
        self._apps: Dict[str, Any] = {}
        self._at = float("-inf")
        self._asking: Optional["asyncio.Future[None]"] = None

    async def find(self, shoal: Shoal, app: str) -> Optional[Dict[str, Any]]:
        """The app, or None where it is not among them."""
        if time.monotonic() - self._at > self.FRESH:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self._ask(shoal))
            await asyncio.shield(self._asking)
        found: Optional[Dict[str, Any]] = self._apps.get(app)
        return found

    async def _ask(self, shoal: Shoal) -> None:
        began, cursor = time.monotonic(), ""
        apps: Dict[str, Any] = {}
        while True:
            page = await shoal.call("GET", "/apps", limit=1000, cursor=cursor)
            apps.update((a["id"], a) for a in page["items"])
            cursor = page.get("next") or ""
            if not cursor:
                break
        self._apps, self._at = apps, began


def _problem(status: int, body: Optional[bytes]) -> ShoalError:
    try:
        problem = json.loads(body or b"")
    except (ValueError, RecursionError):
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("kind"), str):
        return ShoalError(problem["kind"], str(problem.get("detail") or f"HTTP {status}"), str(problem.get("hint") or ""))
    # Something between the hub and Shoal answers; whatever it says tells nothing of Shoal's objects.
    return ShoalError("unreachable", f"Shoal's address answers HTTP {status}, and not as Shoal does", "is c.Shoal.server right?")
