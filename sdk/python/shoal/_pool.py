"""Pools: where jobs and functions are sent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import threading
import time
import uuid
import warnings
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union

from . import _checkpoint, _map, _pack, _show, _spec, _worker
from ._backend import CHUNK, Backend, Json, ServerBackend, payload, remove_old
from ._client import Client, find_target
from ._job import Job, wait
from ._local import DebugBackend, LocalBackend
from ._map import Map, Part, Plan
from ._ship import Parcel, Shipper, title
from ._spec import Amount, Seconds
from ._track import Seen, indexes_of
from .errors import InvalidError, ShoalError, VersionError

T = TypeVar("T")

AHEAD = 60.0  # seconds between the warning and the time limit
IMAGE_KNOWN = 3600.0  # seconds for which what an image has is remembered
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class ImageWarning(UserWarning):
    """The machines have other packages than this host; a sentence says which."""


class Pool:
    """A pool to send work to.

    ``Pool("lab")`` is a pool of the server, ``Pool("local")`` processes of this host, ``Pool("debug")`` this very
    process: functions are called one after the other when somebody asks for their results, so that breakpoints hit.
    ``Pool()`` is the server's default pool. The same code works with each::

        with shoal.Pool("lab", cpus=2, memory="4GiB", time="1h") as p:
            for accuracy in p.map(train, [0.1, 0.01, 0.001]):
                print(accuracy)

    What each task asks for, and may be changed for some with :meth:`options`: ``cpus`` processors, ``memory`` in bytes or
    as "4GiB", whole ``gpus``, ``time`` its limit in seconds or as "1h30m", ``retries`` after failures of its own,
    ``priority`` low, normal or high, ``env`` variables, ``workdir`` its directory.

    Where the server is: ``server`` and ``token`` or ``token_file``, else ``SHOAL_SERVER`` and ``SHOAL_TOKEN``, else the
    machine this runs on, else the stored login, as with the command line. ``user`` is whom an administrator acts as.

    For functions: ``project`` is the root of your code (found if not given), ``python`` the interpreter on the
    machines, ``shared`` a directory on a share, as the machines see it, for results (default: below your home),
    ``check=False`` leaves out the look at the machines' Python. ``workers`` is how many processors ``local`` may use.

    Raises :class:`UnavailableError`, :class:`UnauthenticatedError`; most are raised by the first use.
    """

    def __init__(
        self,
        name: str = "",
        *,
        cpus: Optional[float] = None,
        memory: Optional[Amount] = None,
        gpus: Optional[int] = None,
        time: Optional[Seconds] = None,
        retries: int = 0,
        priority: Optional[str] = None,
        env: Optional[Mapping[str, Any]] = None,
        workdir: Optional[str] = None,
        server: str = "",
        token: str = "",
        token_file: str = "",
        user: str = "",
        project: Optional[str] = None,
        python: Optional[str] = None,
        shared: str = "",
        check: bool = True,
        workers: int = 0,
    ) -> None:
        if _worker.importing_main:
            raise InvalidError(
                "a script that was sent to a machine is imported there, and must not send anything while it is",
                'put what it does below `if __name__ == "__main__":`',
            )
        self._options: Dict[str, Any] = {}
        self._set(cpus=cpus, memory=memory, gpus=gpus, time=time, retries=retries, priority=priority, env=env, workdir=workdir)
        self._project = project
        self._shipper: Optional[Shipper] = None
        self._local = threading.local()
        self._check = check
        self._checked: Dict[str, Json] = {}
        self._python = python
        self._backend: Backend
        if name == "local":
            self._backend = LocalBackend(workers=workers)
        elif name == "debug":
            self._backend = DebugBackend()
        else:
            self._backend = ServerBackend(Client(find_target(server, token, token_file), user), name, shared)

    # ---- what it is

    @property
    def name(self) -> str:
        """The pool's name; empty for a default pool until that is known."""
        return self._backend.name

    def __repr__(self) -> str:
        return f"<shoal.Pool {self.name or '(default)'}>"

    def _set(self, **options: Any) -> None:
        known = {"cpus", "memory", "gpus", "time", "retries", "priority", "env", "workdir"}
        unknown = set(options) - known
        if unknown:
            raise InvalidError(f"there is no option {sorted(unknown)[0]!r}", f"there are {', '.join(sorted(known))}")
        self._options.update({k: v for k, v in options.items() if v is not None})

    def options(self, **options: Any) -> "Pool":
        """The same pool with other needs: ``p.options(cpus=4, time="2h").submit(f)``."""
        other = object.__new__(Pool)
        other.__dict__.update(self.__dict__)
        other._options = dict(self._options)
        other._set(**options)
        return other

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Jobs of a server go on. Those of ``local``, which end with this process, are waited for."""
        if kind is None and isinstance(self._backend, LocalBackend) and not self._backend.inline:
            wait([Job(Seen(self._backend, i)) for i in list(self._backend.jobs)])

    def close(self) -> None:
        """Drops the connection; of ``local`` ends the jobs and removes their files."""
        self._backend.close()

    # ---- commands

    def run(
        self,
        command: Union[str, Sequence[str]],
        *,
        array: Union[None, str, int, range, Sequence[int]] = None,
        items: Optional[Iterable[Any]] = None,
        name: str = "",
        env: Optional[Mapping[str, Any]] = None,
        inputs: Optional[Mapping[str, str]] = None,
        outputs: Optional[Mapping[str, str]] = None,
        after: Union[None, str, Job, Sequence[Union[str, Job]]] = None,
        max_running: int = 0,
        max_fails: int = 0,
        labels: Optional[Mapping[str, str]] = None,
        external_id: str = "",
        **spec: Any,
    ) -> Job:
        """Submits a command, which a shell runs on a machine, and returns at once.

        ``array`` gives a task for each index (``SHOAL_ARRAY_INDEX``), ``items`` for each item: a dict's fields are
        ``PARAM_<NAME>``, and ``{name}`` in the command. ``inputs`` and ``outputs`` name directories of the machines
        (``SHOAL_INPUT_<NAME>``, ``SHOAL_OUTPUT_<NAME>``). ``after`` are jobs that must succeed first, or strings as in
        "17:any". ``external_id`` makes it safe to repeat: the same one is the same job. Further keywords are fields of
        a job as in a job file, as in ``nodes=2, launcher="mpi"``.

        >>> p = Pool("local")
        >>> p.run("echo task $SHOAL_ARRAY_INDEX", array=range(2))[1].logs()  # doctest: +SKIP
        'task 1\\n'
        """
        text = command if isinstance(command, str) else " ".join(shlex.quote(c) for c in command)
        for asked in ("cpus", "memory", "gpus", "time"):
            if asked in spec:
                raise InvalidError(f"run has no {asked}", f"what a task asks for is an option of the pool: options({asked}=...).run(...)")
        s = self._spec(name, env)
        s.update(spec)
        s["command"] = text
        if array is not None:
            s["array"] = _spec.array(array)
        if items is not None:
            s["items"] = _spec.items(items)
            if not s["items"]:
                raise InvalidError("there are no items")
        given = {"inputs": inputs, "outputs": outputs, "labels": labels, "maxRunning": max_running, "maxFails": max_fails, "externalId": external_id}
        s.update({k: dict(v) if isinstance(v, Mapping) else v for k, v in given.items() if v})
        if after is not None:
            s["after"] = [a if isinstance(a, str) else a._seen.id for a in ([after] if isinstance(after, (str, Job)) else after)]
        seen = Seen(self._backend, str(self._backend.submit([s])[0]["id"]))
        if array is None and items is None:
            seen.indexes = [0]
            return Job(seen, 0, name)
        return Job(seen, None, name)

    def _spec(self, name: str, env: Optional[Mapping[str, Any]] = None) -> Json:
        o = self._options
        if not self._backend.name:
            self._adopt("")
        s: Json = {"command": "", "pool": self._backend.name}
        if name:
            s["name"] = _named(name)
        resources = _spec.resources(o.get("cpus"), o.get("memory"), o.get("gpus"))
        if resources:
            s["resources"] = resources
        if o.get("time") is not None:
            s["timeLimit"] = _spec.seconds(o["time"])
        for key in ("retries", "priority"):
            if o.get(key):
                s[key] = o[key]
        both = _spec.environment({**(o.get("env") or {}), **(env or {})})
        if both:
            s["env"] = both
        workdir = o.get("workdir") or self._here()
        if workdir:
            s["workdir"] = workdir
        return s

    def _here(self) -> str:
        """The working directory where the machines have it too, as the command line does it."""
        if isinstance(self._backend, LocalBackend):
            return os.getcwd()
        backend = self._backend
        if not isinstance(backend, ServerBackend) or not backend.who().get("machine"):
            return ""
        here = os.getcwd()
        return here if any(here == p or here.startswith(p.rstrip("/") + "/") for p in backend.seen()) else ""

    # ---- functions

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Job:
        """Sends a call of a function and returns at once; :meth:`Job.result` has what it returns.

        Within :meth:`batch` many become one array. Raises :class:`ShipError` where function or arguments cannot be
        sent, :class:`VersionError` where the machines' Python does not suit.
        """
        call = (_plain(function), args, kwargs)
        waiting: Optional[List[Tuple[Job, Any, "Pool"]]] = getattr(self._local, "batch", None)
        if waiting is not None:
            job = Job(None, None, title(function))
            waiting.append((job, call, self))
            return job
        job = Job(None, None, title(function))
        self._send([(job, call)])
        return job

    @contextlib.contextmanager
    def batch(self) -> Iterator["Pool"]:
        """Gathers the calls of :meth:`submit` made in the block, and sends them as one array at its end::

            with p.batch():
                jobs = [p.submit(f, x) for x in xs]

        An exception in the block sends nothing.
        """
        if getattr(self._local, "batch", None) is not None:
            raise InvalidError("a batch is gathered already")
        gathered: List[Tuple[Job, Any, "Pool"]] = []
        self._local.batch = gathered
        try:
            yield self
        finally:
            self._local.batch = None
        by_needs: Dict[str, Tuple["Pool", List[Tuple[Job, Any]]]] = {}
        for job, call, pool in gathered:
            by_needs.setdefault(repr(sorted(pool._options.items())), (pool, []))[1].append((job, call))
        for pool, calls in by_needs.values():
            for i in range(0, len(calls), CHUNK):
                pool._send(calls[i : i + CHUNK])

    def _send(self, calls: Sequence[Tuple[Job, Any]]) -> None:
        functions = {title(c[0]) for _, c in calls}
        name = functions.pop() if len(functions) == 1 else "batch"
        parcel = self._parcel()
        blobs = parcel.blobs([c for _, c in calls]) if parcel is not None else []
        answer = self._submit_calls(name, [c for _, c in calls], parcel, blobs, {})
        seen = Seen(self._backend, str(answer["id"]), range(len(calls)))
        for i, (job, _) in enumerate(calls):
            job._seen_or_none, job._index = seen, i

    def _parcel(self) -> Optional[Parcel]:
        if self._backend.inline:
            return None
        if self._shipper is None:
            self._shipper = Shipper(self._project)
        return Parcel(self._shipper)

    def _submit_calls(self, name: str, calls: List[Any], parcel: Optional[Parcel], blobs: List[bytes], extra: Json) -> Json:
        """Makes a job of calls."""
        spec = self._spec(name)
        handlers = [f for f, _, _ in calls[:1] if _checkpoint.handler_of(f) is not None]
        if handlers and spec.get("timeLimit"):
            spec["signal"] = f"USR1@{max(1, round(min(AHEAD, spec['timeLimit'] / 2)))}s"
        spec.update({k: v for k, v in extra.items() if v})
        if parcel is None:
            backend = self._backend
            if not isinstance(backend, DebugBackend):
                raise ShoalError("calls need a parcel")
            spec.pop("signal", None)
            return backend.submit_calls(spec, calls)
        archive = parcel.archive()
        if self._check:
            self._suits(archive.imports)
        fields, env = payload(self._backend, archive, blobs, self._interpreter())
        env = {**(spec.get("env") or {}), **env}
        spec.update(fields, outputs={"results": self._backend.place().results})
        if env:
            spec["env"] = env
        return self._backend.submit([spec])[0]

    def _interpreter(self) -> str:
        """The Python on the machines: this one where it is there as well."""
        if self._python:
            return self._python
        if isinstance(self._backend, LocalBackend):
            return sys.executable
        if isinstance(self._backend, ServerBackend) and self._backend.who().get("pool") == self.name and self._backend.who().get("machine"):
            return sys.executable
        return "python3"

    def _adopt(self, name: str) -> None:
        """Settles which pool the default one is."""
        backend = self._backend
        if not name and isinstance(backend, ServerBackend):
            pools = [p for p in backend.client.pages("/pools") if "batch" in (p.get("uses") or ["batch"]) and not p.get("deleting")]
            here = backend.who().get("pool")
            chosen = [p for p in pools if p["name"] == here] or [p for p in pools if p.get("default")] or pools
            if len(chosen) != 1:
                names = ", ".join(str(p["name"]) for p in pools) or "none"
                raise InvalidError("cannot tell which pool is meant", f'say which, as in Pool("lab"); there are: {names}')
            name = str(chosen[0]["name"])
        backend.name = name

    def map(
        self,
        function: Callable[..., T],
        *iterables: Iterable[Any],
        ordered: bool = True,
        errors: str = "raise",
        kwargs: Optional[Mapping[str, Any]] = None,
        retries: Optional[int] = None,
        max_running: int = 0,
        max_fails: int = 0,
        name: str = "",
        replace: bool = False,
    ) -> "Map[T]":
        """Calls a function for each input, in tasks of their own, and returns an iterable of the results.

        Like the built-in ``map``, several iterables give several arguments, and the shortest ends it. ``kwargs`` goes
        along with each call. Inputs are taken and sent in parts of 1,000, at most 8,000 ahead of what has ended, so
        that a generator of millions costs no memory; results stay on the share until they are read.

        ``ordered=False`` gives results as they come. ``errors``: "raise" raises a failed task's exception where its
        result would be (and the next ``next()`` goes on), "return" gives the exception instead, "skip" leaves it out.
        ``retries`` are for each input. ``max_running`` tasks run at a time; after ``max_fails`` failures no more are
        started, and inputs not sent are left out.

        ``name`` makes the map found again, by :meth:`Map.open` or by the same call: the same name with the same inputs
        is the same map, whatever became of the process that sent it, and sends only what was not sent. With other
        inputs it is a :class:`ConflictError`, unless ``replace=True`` removes the former.
        """
        rows = zip(*iterables) if len(iterables) != 1 else ((x,) for x in iterables[0])
        return self._map(function, rows, _map.size_of(iterables), ordered, errors, kwargs, retries, max_running, max_fails, name, replace)

    def starmap(self, function: Callable[..., T], rows: Iterable[Sequence[Any]], **how: Any) -> "Map[T]":
        """:meth:`map` with the arguments of each call in a tuple."""
        given: Dict[str, Any] = {"ordered": True, "errors": "raise", "kwargs": None, "retries": None, "max_running": 0, "max_fails": 0, "name": "", "replace": False}
        unknown = set(how) - set(given)
        if unknown:
            raise TypeError(f"starmap() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        given.update(how)
        return self._map(function, rows, _map.size_of([rows]), **given)

    def spawn_map(self, function: Callable[..., T], *iterables: Iterable[Any], **how: Any) -> "Map[T]":
        """:meth:`map` that has sent everything when it returns: fire and forget, and :meth:`Map.open` later.

        With ``max_running`` or ``max_fails`` and more than 1,000 inputs it takes as long as all but the last 1,000.
        """
        m = self.map(function, *iterables, **how)
        m._feed(all_=True)
        while not m._complete and not m._over():
            m._until(lambda: m._complete or m._over(), None, _show.Progress())
        return m

    def for_each(self, function: Callable[..., Any], *iterables: Iterable[Any], **how: Any) -> None:
        """:meth:`map` for functions without a result; waits for all, and raises the first exception."""
        how.setdefault("ordered", False)
        for _ in self.map(function, *iterables, **how):
            pass

    def amap(self, function: Callable[..., T], *iterables: Iterable[Any], **how: Any) -> "Map[T]":
        """:meth:`map` for ``async for``."""
        return self.map(function, *iterables, **how)

    def _map(
        self,
        function: Callable[..., T],
        rows: Iterable[Sequence[Any]],
        size: Optional[int],
        ordered: bool,
        errors: str,
        kwargs: Optional[Mapping[str, Any]],
        retries: Optional[int],
        max_running: int,
        max_fails: int,
        name: str,
        replace: bool,
    ) -> "Map[T]":
        plain = _plain(function)
        if name and not _NAME.fullmatch(name):
            raise InvalidError(f"{name!r} cannot be the name of a map", "use letters, digits, ., _ and -, at most 63")
        pool = self if retries is None else self.options(retries=retries)
        begun = pool._begin_anew(name, replace) if name else 0
        full = name or f"{_named(title(plain))[:40]}-{uuid.uuid4().hex[:8]}"
        parcel = pool._parcel()

        def submit(part: Part) -> Json:
            labels = {_map.LABEL: full, _map.LAST: "true" if part.last else "false"}
            if parcel is not None and name:
                labels.update({_map.MARK: part.mark, _map.CODE: parcel.mark()})
            extra = {"labels": labels, "maxRunning": max_running, "maxFails": part.fails, "externalId": _map.external_id(full, begun, part.number)}
            return pool._submit_calls(full, part.calls, parcel, part.blobs, extra)

        calls = _map.spread(plain, rows, dict(kwargs or {}))
        m: Map[T] = Map(pool, full, Plan(parcel, submit, calls, size, not name, bool(max_running or max_fails), max_fails), ordered, errors)
        m._feed()
        return m

    def _begin_anew(self, name: str, replace: bool) -> int:
        """The generation under which a map of a name is sent."""
        found, _ = self._backend.status(label=f"{_map.LABEL}={name}")
        newest = max((_map.generation(s) for s in found), default=0)
        if not found or not replace:
            return newest
        Map.open(name, self).delete()
        return newest + 1

    # ---- finding

    def job(self, id: Union[str, int], index: Optional[int] = None) -> Job:
        """A job by its number, or a task of it: ``p.job(17)``, ``p.job("17/3")``."""
        number, _, task = str(id).partition("/")
        seen = Seen(self._backend, number)
        seen.job  # noqa: B018  it must be there
        if task:
            index = int(task)
        if index is not None:
            return Job(seen)[index]
        known = indexes_of(seen.job)
        return Job(seen)[known[0]] if len(known) == 1 else Job(seen)

    def jobs(self, limit: int = 20) -> List[Job]:
        """Your newest jobs of this pool."""
        backend = self._backend
        if isinstance(backend, LocalBackend):
            return [Job(Seen(backend, i)) for i in reversed(list(backend.jobs)[-limit:])]
        if not isinstance(backend, ServerBackend):
            return []
        found = backend.client.pages("/jobs", limit, pool=backend.name or None, user=backend.who().get("user"))
        return [Job(Seen(backend, str(j["id"])), None, str(j["spec"].get("name") or "")) for j in found]

    def _own(self, job: Json) -> bool:
        return not isinstance(self._backend, ServerBackend) or job.get("user") == self._backend.who().get("user")

    def clean(self, older: Seconds = "30d") -> None:
        """Removes the results of functions, and what was sent, that were written so long ago (seconds, or "30d"), of all your
        maps and jobs of this pool. The jobs' records stay until the server forgets them."""
        if not self.name:
            self._adopt("")
        remove_old(self._backend, _spec.seconds(older))

    # ---- the machines' Python

    def check(self) -> Json:
        """Looks at the Python on the pool's machines: ``python`` (as "3.11"), ``version``, and ``packages``, name to
        version. Starts a short job, unless the answer is known; raises :class:`VersionError` where functions could not
        be sent."""
        python = self._interpreter()
        if not self.name:
            self._adopt("")
        found = self._checked.get(python) or _remembered(self._backend, python)
        if found is None:
            found = self._backend.image(python)
            _remember(self._backend, python, found)
        self._checked[python] = found
        if found.get("python") != _pack.PYTHON:
            raise VersionError(
                f"cannot send functions to pool {self.name}: {python} there is Python {found.get('python')}, and here is Python {_pack.PYTHON}",
                f'name one that is {_pack.PYTHON} with Pool(..., python="/path/to/python{_pack.PYTHON}"), or run this with Python {found.get("python")}',
            )
        return found

    def _suits(self, imports: Sequence[str]) -> None:
        new = self._interpreter() not in self._checked
        found = self.check()
        if new and found.get("packages") is not None:
            said = _differences(imports, found["packages"])
            if said:
                warnings.warn(f"the machines of pool {self.name} {said}", ImageWarning, stacklevel=5)

    def _repr_html_(self) -> str:
        jobs = self.jobs(10)
        return _show.jobs_html(jobs) if jobs else f"<p>{_show.escape(repr(self))}: no jobs yet</p>"


def _plain(function: Any) -> Any:
    """The function itself of one that was decorated with ``shoal.remote``."""
    return getattr(function, "__shoal_function__", function)


def _named(text: str) -> str:
    """Text as the name of a job.

    >>> _named("the lambda on line 3")
    'the-lambda-on-line-3'
    """
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "job")[:63]


def _differences(imports: Sequence[str], there: Mapping[str, str]) -> str:
    """What an image lacks or has in another version, of what the shipped code imports and is installed here.

    >>> _differences([], {})
    ''
    """
    try:
        from importlib import metadata

        tops = metadata.packages_distributions()  # type: ignore[attr-defined]  # since 3.10
    except (ImportError, AttributeError):
        return ""
    lacks, other = [], []
    for module in imports:
        for name in sorted(set(tops.get(module, ())) if module in sys.modules else ()):
            here, found = metadata.version(name), there.get(name.lower().replace("_", "-"))
            if found is None:
                lacks.append(name)
            elif found != here:
                other.append(f"{name} {found} (here {here})")
    said = (["have no " + ", ".join(lacks)] if lacks else []) + (["have " + ", ".join(other)] if other else [])
    return ", and ".join(said)


def _memory() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "shoal", "images.json")


def _place_of(backend: Backend, python: str) -> str:
    if not isinstance(backend, ServerBackend):
        return ""
    pool = backend.pool()
    return " ".join((backend.client.where, backend.name, str(pool.get("image")), python))


def _remembered(backend: Backend, python: str) -> Optional[Json]:
    key = _place_of(backend, python)
    try:
        with open(_memory(), encoding="utf-8") as f:
            found = json.load(f).get(key)
        if key and time.time() - float(found["at"]) < IMAGE_KNOWN:
            return dict(found["image"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


def _remember(backend: Backend, python: str, image: Json) -> None:
    key = _place_of(backend, python)
    if not key or image.get("packages") is None:
        return
    try:
        try:
            with open(_memory(), encoding="utf-8") as f:
                known = {k: v for k, v in json.load(f).items() if time.time() - float(v["at"]) < IMAGE_KNOWN}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            known = {}
        known[key] = {"at": time.time(), "image": image}
        _pack.write_whole(_memory(), json.dumps(known).encode())
    except OSError:
        pass  # it is asked again


__all__ = ["Pool", "ImageWarning"]
