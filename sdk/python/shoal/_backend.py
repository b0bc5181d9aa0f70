"""What carries jobs out: a server, or this process. Both speak in the API's words."""

from __future__ import annotations

import base64
import os
import posixpath
import shlex
import shutil
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from . import _pack
from ._client import Client, new_key, quote
from ._ship import Archive
from .errors import InvalidError, NotFoundError, ResultError, ShoalError, from_problem

try:
    from typing import Protocol
except ImportError:  # pragma: no cover
    Protocol = object  # type: ignore[assignment]

Json = Dict[str, Any]

MAX_SENT = 768 << 10  # bytes of a file that a job may write from its environment, which holds about 2 MiB
MAX_ITEM = 48 << 10  # bytes of one call's arguments that may
PART = 60_000  # characters of one variable
CHUNK = 1000  # tasks of one job
MAX_ITEMS = 3 << 19  # bytes of the arguments of one job's calls that may: the server takes 3 MiB, in base64

ENDED = ("succeeded", "failed", "cancelled", "timedout")


class Place(NamedTuple):
    """Where results go. ``results`` is a directory that all machines see; ``direct``: so do we."""

    results: str
    direct: bool

    @property
    def files(self) -> str:
        """Where archives and arguments are written, beside the results."""
        return posixpath.join(posixpath.dirname(self.results), "sent")


class Backend(Protocol):
    """What a pool needs of whoever runs its jobs. Jobs, attempts and statuses are the API's JSON objects."""

    name: str
    inline: bool  # functions are called in this process

    def place(self) -> Place: ...

    def submit(self, specs: Sequence[Json]) -> List[Json]: ...

    def status(self, ids: Sequence[str] = (), external: Sequence[str] = (), label: str = "", rev: int = 0) -> Tuple[List[Json], int]: ...

    def job(self, id: str) -> Json: ...

    def tasks(self, id: str, start: int = 0, limit: int = 0) -> Iterator[Json]: ...

    def output(self, id: str, index: int, stream: str, follow: bool, offset: int = 0) -> Iterator[bytes]: ...

    def cancel(self, ids: Sequence[str]) -> None: ...

    def cancel_tasks(self, id: str, tasks: str) -> None: ...

    def retry(self, id: str, tasks: str) -> None: ...

    def files(self, id: str) -> Iterator[Json]: ...

    def download(self, id: str, output: str, path: str) -> bytes: ...

    def image(self, python: str) -> Json: ...

    def close(self) -> None: ...


def directory_of(job: Mapping[str, Any], output: str = "results") -> str:
    """Where a job's output lies: a directory of its own below the one that was asked for."""
    told = job["spec"]["outputs"][output]
    path, reuse = (told, False) if isinstance(told, str) else (told["path"], told.get("reuse", False))
    return str(path) if reuse else posixpath.join(path, str(job["id"]))


class ServerBackend:
    """Jobs of a pool of a server."""

    inline = False

    def __init__(self, client: Client, name: str, shared: str = "") -> None:
        self.client = client
        self.name = name
        self.shared = shared
        self._place: Optional[Place] = None
        self._who: Optional[Json] = None
        self._seen: Optional[List[str]] = None

    def who(self) -> Json:
        if self._who is None:
            self._who = dict(self.client.get("/whoami"))
        return self._who

    def pool(self) -> Json:
        return dict(self.client.get(quote("pools", self.name)))

    def seen(self) -> List[str]:
        """The mounts of the pool that are here, too. What a pool mounts seldom changes, and this is asked with each job."""
        if self._seen is None:
            self._seen = [str(m["path"]) for m in self.pool().get("mounts") or [] if self._sees(self.who(), m)]
        return self._seen

    # ---- where files go

    def place(self) -> Place:
        """Finds where results can go: below the user's home on a share, or ``shared``. Raises InvalidError where no
        machine has a place that outlives it."""
        if self._place is None:
            self._place = self._find_place()
        return self._place

    def _find_place(self) -> Place:
        who, pool = self.who(), self.pool()
        mounts = [m for m in pool.get("mounts") or [] if not m.get("readOnly")]
        if self.shared:
            # Several people may name the same directory.
            mount, own = self._shared_mount(mounts), posixpath.join(self.shared, f".shoal-{who['user']}")
            return Place(posixpath.join(own, "results"), self._sees(who, mount))
        home = pool.get("home") or {}
        found = next((m for m in mounts if m["share"] == home.get("share")), None)
        if found is None:
            raise InvalidError(
                f"results of functions need a share, and in pool {self.name} homes are not on one",
                f'name a directory of a share with Pool("{self.name}", shared="/path/on/the/machines"); commands, p.run(…), need none',
            )
        own = posixpath.join(found["path"], str(home.get("path") or "home/{user}").replace("{user}", str(who["user"])))
        return Place(posixpath.join(own, ".shoal", "results"), self._sees(who, found))

    def _shared_mount(self, mounts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        base = posixpath.normpath(self.shared)
        for m in mounts:
            if base == m["path"] or base.startswith(m["path"].rstrip("/") + "/"):
                return m
        paths = ", ".join(str(m["path"]) for m in mounts) or "none"
        raise InvalidError(f"cannot keep results in {self.shared!r}: it is on no share that pool {self.name} can write to", f"its shares are at: {paths}")

    def _sees(self, who: Json, mount: Mapping[str, Any]) -> bool:
        """Whether a mount of the pool is where it is here, too. Only a machine of Shoal's can know that for sure: on any
        other, a directory of the same name may be another one."""
        if not who.get("machine"):
            return False
        here = self.client.get(quote("pools", who["pool"])) if who.get("pool") != self.name else self.pool()
        return any(m["share"] == mount["share"] and m["path"] == mount["path"] for m in here.get("mounts") or [])

    # ---- jobs

    def submit(self, specs: Sequence[Json]) -> List[Json]:
        # With a name of the client's own for each job the request can be repeated.
        named = [s if s.get("externalId") else dict(s, externalId="py-" + new_key()) for s in specs]
        answer = self.client.call("POST", "/jobs:batch", body={"jobs": named}, repeat=True)
        items = answer["items"]
        for item in items:
            if item.get("problem"):
                raise from_problem(item["problem"])
        return [dict(i) for i in items]

    def status(self, ids: Sequence[str] = (), external: Sequence[str] = (), label: str = "", rev: int = 0) -> Tuple[List[Json], int]:
        body: Json = {"rev": rev} if rev else {}
        body.update({k: v for k, v in (("ids", list(ids)), ("externalIds", list(external)), ("label", label)) if v})
        found: List[Json] = []
        while True:
            answer = self.client.call("POST", "/jobs:status", body=body, repeat=True)
            found += answer.get("items") or []
            if not answer.get("next"):
                return found, int(answer.get("rev") or 0)
            body["cursor"] = answer["next"]

    def job(self, id: str) -> Json:
        return dict(self.client.get(quote("jobs", id)))

    def tasks(self, id: str, start: int = 0, limit: int = 0) -> Iterator[Json]:
        return self.client.pages(quote("jobs", id, "tasks"), limit, **{"from": start or None})

    def output(self, id: str, index: int, stream: str, follow: bool, offset: int = 0) -> Iterator[bytes]:
        return self.client.stream(quote("jobs", id, "tasks", index, "output"), {"stream": stream, "follow": follow}, offset)

    def cancel(self, ids: Sequence[str]) -> None:
        for i in range(0, len(ids), CHUNK):
            self.client.call("POST", "/jobs:cancel", body={"ids": list(ids[i : i + CHUNK])}, repeat=True)

    def cancel_tasks(self, id: str, tasks: str) -> None:
        self.client.call("POST", quote("jobs", id, "cancel"), body={"tasks": tasks}, repeat=True)

    def retry(self, id: str, tasks: str) -> None:
        self.client.call("POST", quote("jobs", id, "retry"), body={"tasks": tasks} if tasks else {})

    # ---- files

    def files(self, id: str) -> Iterator[Json]:
        return self.client.pages(quote("jobs", id, "files"))

    def download(self, id: str, output: str, path: str) -> bytes:
        data = self.client.call("GET", quote("jobs", id, "files", output) + quote(*path.split("/")), raw=True)
        return bytes(data)

    # ---- the image

    def image(self, python: str) -> Json:
        """What the machines' Python is and has installed, asked by a short job."""
        here = self.who().get("pool") == self.name and python == sys.executable
        if here:  # this very image
            return {"python": _pack.PYTHON, "version": sys.version.split()[0], "packages": None}
        spec = {"name": "check", "pool": self.name, "command": f"exec {shlex.quote(python)} -c {shlex.quote(_LOOK)}", "timeLimit": "2m"}
        return ask(self, spec, python)

    def close(self) -> None:
        self.client.close()


_LOOK = """
import sys, json
try:
    from importlib import metadata
    found = {}
    tops = metadata.packages_distributions() if hasattr(metadata, "packages_distributions") else {}
    for d in metadata.distributions():
        name = d.metadata["Name"]
        if name: found[name.lower().replace("_", "-")] = d.version
except Exception: found, tops = None, {}
print(json.dumps({"python": "%d.%d" % sys.version_info[:2], "version": sys.version.split()[0], "packages": found}))
"""


def ask(backend: Backend, spec: Json, python: str) -> Json:
    """Runs a job that prints JSON, and reads that."""
    import json

    id = str(backend.submit([spec])[0]["id"])
    text = b"".join(backend.output(id, 0, "stdout", True))
    ended = await_end(backend, id)
    try:
        found = json.loads(text)
    except ValueError:
        errors = b"".join(backend.output(id, 0, "stderr", False)).decode("utf-8", "replace").strip()
        said = errors or ended.get("reason") or "it said nothing"
        raise InvalidError(f"cannot use {python} on the machines of pool {backend.name}: {said}", 'name another with Pool(..., python="/path/to/python3")') from None
    return dict(found)


def await_end(backend: Backend, id: str, timeout: Optional[float] = None) -> Json:
    """Waits for a job's end and returns its status."""
    pause = Pause(backend.inline)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        items, _ = backend.status([id])
        if items and items[0].get("state") in ENDED:
            return items[0]
        if items and items[0].get("unknown"):
            raise NotFoundError(f"there is no job {id}")
        if not pause.wait(deadline):
            return {}


class Pause:
    """Waits between two looks: short ones while something happens, longer ones while nothing does."""

    FIRST, LAST = 0.02, 1.0

    def __init__(self, inline: bool = False) -> None:
        self.inline = inline  # nothing happens while we wait
        self.reset()

    def reset(self) -> None:
        self.length = 0.0 if self.inline else self.FIRST

    def wait(self, deadline: Optional[float] = None, least: float = 0.0) -> bool:
        """Waits; False if the deadline (of ``time.monotonic``) has come."""
        length = 0.0 if self.inline else max(self.length, min(least, 5.0))
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            length = min(length, left)
        time.sleep(length)
        self.length = min(length * 1.5, self.LAST)
        return True


# ---- payloads


class Sent(NamedTuple):
    """A file on the share, as the machines see it, and the job that writes it (empty: it is there)."""

    path: str
    job: str


KEEP = 90 * 86400.0  # seconds that an archive is kept after its last use


def deliver(backend: Backend, data: bytes, ending: str, python: str, what: str) -> Sent:
    """Puts bytes into a file that all machines see, named by their checksum: directly where the share is in reach, else
    by a small job that has them in its environment. Raises InvalidError where they are too many for that."""
    place, name = backend.place(), _pack.digest(data)
    path = posixpath.join(place.files, name + ending)
    if place.direct:
        if os.path.exists(path):
            os.utime(path)
        else:
            _pack.write_whole(path, data)
            _sweep(place.files)
        return Sent(path, "")
    if len(data) > MAX_SENT:
        raise InvalidError(
            f"cannot send {what}: {len(data):,} bytes, and without a share in reach {MAX_SENT:,} can travel",
            "put large data into files on a share and hand over their paths, or send from a machine of the pool",
        )
    text = base64.b64encode(data).decode("ascii")
    env = {f"PART_{i // PART}": text[i : i + PART] for i in range(0, len(text), PART)}
    command = f"exec {shlex.quote(python)} -c {shlex.quote(_WRITE)} {shlex.quote(path)} {name} {len(env)}"
    spec: Json = {"name": "send", "pool": backend.name, "command": command, "env": env, "timeLimit": 300, "retries": 2}
    # Once a day is enough, and soon enough for a file that somebody has removed.
    day = time.strftime("%Y-%m-%d", time.gmtime())
    sent = backend.submit([dict(spec, externalId=f"send/{backend.name}/{day}/{path}")])[0]
    if sent.get("existing"):
        found, _ = backend.status([str(sent["id"])])
        if found and found[0].get("state") in ENDED and found[0]["state"] != "succeeded":
            sent = backend.submit([spec])[0]
    return Sent(path, str(sent["id"]))


_WRITE = """
import base64, hashlib, os, sys, tempfile
path, name, parts = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = base64.b64decode("".join(os.environ["PART_%d" % i] for i in range(parts)))
if hashlib.sha256(data).hexdigest() != name:
    sys.exit("the bytes were changed on their way")
top = os.path.dirname(path)
os.makedirs(top, 0o700, True)
handle, new = tempfile.mkstemp(prefix=".writing-", dir=top)
with os.fdopen(handle, "wb") as f:
    f.write(data)
    f.flush()
    os.fsync(f.fileno())
os.replace(new, path)
"""


def _sweep(directory: str) -> None:
    """Removes archives that nobody has used for long."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            if name.endswith(".zip") and os.stat(path).st_mtime < time.time() - KEEP:
                os.unlink(path)
        except OSError:
            pass


def payload(backend: Backend, archive: Archive, blobs: Sequence[bytes], python: str) -> Tuple[Json, Dict[str, str]]:
    """How calls travel: fields of their job, and variables."""
    fields: Json = {}
    env: Dict[str, str] = {}
    sent: List[Sent] = []
    if max(map(len, blobs)) > MAX_ITEM or sum(map(len, blobs)) > MAX_ITEMS:
        sent.append(deliver(backend, _pack.pack_many(blobs), ".calls", python, "the arguments"))
        env["SHOALPY_CALLS"] = sent[0].path
        fields["array"] = f"0-{len(blobs) - 1}" if len(blobs) > 1 else "0"
    else:
        fields["items"] = [_pack.to_text(b) for b in blobs]
    sent.append(deliver(backend, archive.data, ".zip", python, "the functions with their modules and what they hold"))
    fields["command"] = f"exec {shlex.quote(python)} {shlex.quote(sent[-1].path)}"
    after = [s.job for s in sent if s.job]
    if after:
        fields["after"] = after
    return fields, env


def read_result(backend: Backend, job: Json, index: int, name: str, patience: float) -> bytes:
    """Reads a file of a task; a share may show it a little late, so it is looked for during ``patience`` seconds.
    Raises FileNotFoundError."""
    path = f"{index}/{name}"
    deadline = time.monotonic() + patience
    while True:
        try:
            if backend.place().direct:
                with open(posixpath.join(directory_of(job), path), "rb") as f:
                    return f.read()
            return backend.download(str(job["id"]), "results", path)
        except (FileNotFoundError, NotFoundError) as e:
            if time.monotonic() >= deadline:
                raise FileNotFoundError(path) from e
            time.sleep(0.05)
        except OSError as e:
            raise ResultError(f"cannot read the result of task {index} of job {job['id']}: {e}") from e


def remove_results(backend: Backend, jobs: Iterable[Json]) -> None:
    """Removes the files of jobs: results, and the arguments and archives that went to a file."""
    place = backend.place()
    paths: List[str] = []
    for job in jobs:
        paths.append(directory_of(job))
        calls = (job["spec"].get("env") or {}).get("SHOALPY_CALLS")
        paths += [calls] if calls else []
    if place.direct:
        for p in paths:
            shutil.rmtree(p, ignore_errors=True) if os.path.isdir(p) else _unlink(p)
    elif paths:
        _there(backend, "rm -rf -- " + " ".join(shlex.quote(p) for p in paths))


def remove_old(backend: Backend, seconds: float) -> None:
    """Removes results and arguments that were written so long ago."""
    place = backend.place()
    if not place.direct:
        older = f"-mindepth 1 -maxdepth 1 -mmin +{max(1, int(seconds // 60))} -exec rm -rf {{}} +"
        _there(backend, f"for d in {shlex.quote(place.results)} {shlex.quote(place.files)}; do test ! -d $d || find $d {older}; done")
        return
    for top in (place.results, place.files):
        for name in os.listdir(top) if os.path.isdir(top) else ():
            path = os.path.join(top, name)
            if os.stat(path).st_mtime < time.time() - seconds:
                shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else _unlink(path)


def _there(backend: Backend, command: str) -> None:
    """Runs a command on a machine, for its effect."""
    id = str(backend.submit([{"name": "clean", "pool": backend.name, "command": command}])[0]["id"])
    ended = await_end(backend, id)
    if ended.get("state") != "succeeded":
        raise ShoalError(f"cannot remove the results: {ended.get('reason') or ended.get('state')}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
