"""Who comes in is a user of Shoal's: by Shoal's own login page, or by name and password in the hub's form."""

from __future__ import annotations

import json
import secrets
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

from jupyterhub.auth import Authenticator
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.utils import url_path_join
from tornado import web
from tornado.httputil import url_concat
from traitlets import Bool, Unicode, default

from ._api import Shoal, ShoalError

COOKIE = "shoal-states"
STATE_LIFE = 600  # seconds that a login may take
TABS = 5  # logins of one browser at a time
LONGEST = 500  # of an address to go to after the login


class ShoalLogin(BaseHandler):
    """Sends the browser to Shoal's login page, which sends it back with a code."""

    def get(self) -> None:
        state = secrets.token_urlsafe(24)
        after = self.get_next_url() if self.get_argument("next", "") else ""
        states = recall(self)
        states.append((state, after if len(after) <= LONGEST else ""))
        remember(self, states[-TABS:])
        self.redirect(url_concat(self.authenticator.authorize_url, {"client": "hub", "redirect_uri": self.authenticator.callback(self.hub.base_url), "state": state}))


class ShoalCallback(BaseHandler):
    """Takes the code. It counts only in the browser that was sent for it."""

    code = state = ""

    async def get(self) -> None:
        self.code, self.state = self.get_argument("code", ""), self.get_argument("state", "")
        states = recall(self)
        found = [after for state, after in states if secrets.compare_digest(state.encode(), self.state.encode())]
        if not found or not self.code:
            # An old tab, or the browser keeps no cookies; or somebody tries to sign her in as himself.
            raise web.HTTPError(403, "This login was not begun here, or it took too long. Please go to the start page and log in again.")
        remember(self, [(s, after) for s, after in states if s != self.state])
        user = await self.login_user()
        if user is None:
            raise web.HTTPError(403, "Shoal does not accept this login. Please go to the start page and log in again.")
        self._jupyterhub_user = user
        self.redirect(found[0] or self.get_next_url(user))


class ShoalLogout(LogoutHandler):
    """Ends the hub's login, and leads to Shoal's page, where that of Shoal can be ended."""

    async def render_logout_page(self) -> None:
        self.redirect(self.authenticator.home_url, permanent=False)


def recall(handler: BaseHandler) -> List[Tuple[str, str]]:
    """The logins that this browser has begun: state, and where to go afterwards."""
    text = handler.get_secure_cookie(COOKIE, max_age_days=STATE_LIFE / 86400)
    try:
        return [(str(s), str(after)) for s, after in json.loads(text or b"[]")][-TABS:]
    except (ValueError, TypeError):
        return []


def remember(handler: BaseHandler, states: List[Tuple[str, str]]) -> None:
    options: Dict[str, Any] = {"path": handler.hub.base_url, "httponly": True, "samesite": "Lax", "secure": handler.request.protocol == "https"}
    if states:
        handler.set_secure_cookie(COOKIE, json.dumps(states), expires_days=STATE_LIFE / 86400, **options)
    else:
        handler.clear_cookie(COOKIE, path=options["path"])


class ShoalAuthenticator(Authenticator):
    """Users and groups are Shoal's; nobody is the hub's administrator by being one of Shoal's."""

    single_sign_on = Bool(help="Log in at Shoal's own page, which must be at the same address as the hub; else the hub's form asks for Shoal's password.").tag(config=True)
    authorize_url = Unicode("/shoal/authorize", help="Where Shoal's login page is, with single_sign_on.").tag(config=True)
    home_url = Unicode("/shoal/", help="Where to go after a logout, with single_sign_on.").tag(config=True)

    # Newer hubs let nobody in unless it is said who; Shoal has said it.
    allow_all = Bool(True).tag(config=True)

    @default("manage_groups")
    def _manage_groups_default(self) -> bool:
        return True

    @default("auth_refresh_age")
    def _auth_refresh_age_default(self) -> int:
        return 60  # seconds: who is disabled is out soon, with all tokens of hers

    @default("auto_login")
    def _auto_login_default(self) -> bool:
        return self.single_sign_on

    @default("username_pattern")
    def _username_pattern_default(self) -> str:
        return "^[a-z_][a-z0-9_-]{0,31}$"

    @property
    def _shoal(self) -> Shoal:
        return Shoal(config=self.config)

    def callback(self, base_url: str) -> str:
        return str(url_path_join(base_url, "shoal-callback"))

    def login_url(self, base_url: str) -> str:
        return str(url_path_join(base_url, "shoal-login" if self.single_sign_on else "login"))

    def get_handlers(self, app: Any) -> List[Tuple[str, Type[BaseHandler]]]:
        if not self.single_sign_on:
            return []
        return [("/shoal-login", ShoalLogin), ("/shoal-callback", ShoalCallback), ("/logout", ShoalLogout)]

    async def authenticate(self, handler: BaseHandler, data: Optional[Mapping[str, Any]] = None) -> Optional[Dict[str, Any]]:
        try:
            if isinstance(handler, ShoalCallback):
                return await self._by_code(handler)
            if self.single_sign_on:  # the form is not shown, and not accepted either
                return None
            return await self._by_password(data or {})
        except ShoalError as e:
            if e.unknown:
                raise web.HTTPError(503, e.message) from e
            self.log.warning("a login is refused: %s", e.message)
            return None

    async def _by_code(self, handler: ShoalCallback) -> Dict[str, Any]:
        request = {"code": handler.code, "redirectUri": self.callback(handler.hub.base_url), "state": handler.state}
        return _user(await self._shoal.call("POST", "/web/redeem", request))

    async def _by_password(self, data: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
        name, password = str(data.get("username") or "").lower(), str(data.get("password") or "")
        if not password or not self.validate_username(name):
            return None
        await self._shoal.call("POST", "/login", {"user": name, "password": password}, token=False)
        return await self._current(name)

    async def _current(self, name: str) -> Dict[str, Any]:
        found = await self._shoal.call("GET", f"/users/{name}")
        if found.get("disabled"):
            raise ShoalError("denied", f"user {name} is disabled")
        return _user({"user": found["name"], "groups": found.get("groups")})

    async def refresh_user(self, user: Any, handler: Any = None) -> Any:
        """Whether the user is still one. A Shoal that does not answer changes nothing."""
        try:
            await self._current(user.name)
        except ShoalError as e:
            if e.kind in ("notFound", "denied"):
                self.log.warning("the login of %s ends: %s", user.name, e.message)
                return False
        return True


def _user(found: Mapping[str, Any]) -> Dict[str, Any]:
    # admin is said, so that nobody stays one who was made one by hand in the hub's database.
    return {"name": str(found["user"]), "admin": False, "groups": [str(g) for g in found.get("groups") or ()]}
