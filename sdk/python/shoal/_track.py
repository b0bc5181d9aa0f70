"""What is known of jobs, and how what a task left becomes a value or an exception."""

from __future__ import annotations

import importlib
import io
import pickle
import time
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from . import _pack
from ._backend import CHUNK, ENDED, Backend, Json, Pause, read_result
from ._local import DebugBackend
from ._worker import MAIN, RESULT
from .errors import NotFoundError, RemoteError, RemoteTraceback, ResultError, TaskError

TAIL = 4096  # bytes of a log that an error shows


GOOD: Json = {"state": "succeeded"}


class Seen:
    """A job as it was last seen. ``ended`` are the tasks that are over, by index, where these are followed."""

    def __init__(self, backend: Backend, id: str, indexes: Optional[Sequence[int]] = None) -> None:
        self.backend = backend
        self.id = id
        self.status: Json = {"id": id, "state": "queued", "counts": {}}
        self.indexes = indexes
        self.ended: Dict[int, Json] = {}
        self._job: Optional[Json] = None
        self.rev = 0  # of the store, when it was last looked at
        self.behind = False
        self._first = 0  # position of the first task that is not over

    @property
    def job(self) -> Json:
        """The job itself, with its specification."""
        if self._job is None:
            self._job = self.backend.job(self.id)
        return self._job

    @property
    def over(self) -> bool:
        return self.status.get("state") in ENDED

    def update(self, status: Json) -> bool:
        """Takes what the server says; whether that is news."""
        if status.get("unknown"):
            raise NotFoundError(f"there is no job {self.id}", "it is another user's, or of another server")
        before = len(self.ended)
        news = status.get("rev") != self.status.get("rev") or status["state"] != self.status["state"]
        self.status = status
        if self.indexes is not None:
            counts = status.get("counts") or {}
            over = sum(int(counts.get(s) or 0) for s in ENDED)
            if over > len(self.ended):
                self._list()
            self.behind = over > len(self.ended)  # a task ended between the two answers
        return news or len(self.ended) > before

    def _list(self) -> None:
        indexes = self.indexes or ()
        while self._first < len(indexes) and indexes[self._first] in self.ended:
            self._first += 1
        if self._first == len(indexes):
            return
        for task in self.backend.tasks(self.id, indexes[self._first]):
            if task.get("state") in ENDED:
                # There may be a million of them: those that went well need no record of their own.
                self.ended.setdefault(int(task.get("index") or 0), GOOD if task["state"] == "succeeded" else task)

    def again(self) -> None:
        """Forgets the tasks that did not succeed: they have been started again."""
        self.ended = {i: t for i, t in self.ended.items() if t["state"] == "succeeded"}
        self.status = dict(self.status, state="queued", rev=0)
        self._first, self.rev = 0, 0


def look(jobs: Sequence[Seen]) -> bool:
    """Looks at jobs of one backend, all in one request; whether anything is new."""
    news = False
    waiting = [j for j in jobs if not j.over or j.behind]
    for i in range(0, len(waiting), CHUNK):
        part = {j.id: j for j in waiting[i : i + CHUNK]}
        since = min(0 if j.behind else j.rev for j in part.values())
        items, rev = next(iter(part.values())).backend.status(list(part), rev=since)
        for item in items:
            seen = part.get(str(item.get("id")))
            if seen is not None and (item.get("unknown") or item.get("rev") != seen.status.get("rev") or seen.behind):
                news = seen.update(item) or news
        for seen in part.values():
            seen.rev = rev
    return news


def wait_until(done: Callable[[], bool], jobs: Callable[[], Sequence[Seen]], timeout: Optional[float], tick: Optional[Callable[[], None]] = None) -> bool:
    """Looks at jobs until ``done()``; False if ``timeout`` seconds passed before. ``tick`` is called after news."""
    pause = Pause(any(j.backend.inline for j in jobs()))
    deadline = None if timeout is None else time.monotonic() + timeout
    while not done():
        begun = time.monotonic()
        news = look(jobs())
        if news:
            pause.reset()
            if tick is not None:
                tick()
            if done():
                return True
        # What is costly to look at is looked at less often.
        if not pause.wait(deadline, 3 * (time.monotonic() - begun)):
            return done()
    return True


class _Unpickler(pickle.Unpickler):
    """Finds what a script defined: on a machine it was imported under another name."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class("__main__" if module == MAIN else module, name)


def loads(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()


Outcome = Tuple[bool, Any]  # (True, the value) or (False, the exception)


def outcome(seen: Seen, index: int) -> Outcome:
    """What came of a task that has ended."""
    task = seen.ended[index]
    state = task["state"]
    if isinstance(seen.backend, DebugBackend) and index in seen.backend.find(seen.id).outcomes:
        kind, value = seen.backend.find(seen.id).outcomes[index]
        return kind == "value", value
    if "results" not in (seen.job["spec"].get("outputs") or {}):
        return (True, 0) if state == "succeeded" else (False, failure(seen, task))
    patience = 5.0 if state == "succeeded" else 0.5 if task.get("cause") == "exit" else 0.0
    try:
        header, body = _pack.unpack(read_result(seen.backend, seen.job, index, RESULT, patience))
    except FileNotFoundError:
        if state == "succeeded":
            return False, ResultError(f"task {index} of job {seen.id} has no result, although it succeeded", "was it removed, or the job made by something else than this package?")
        return False, failure(seen, task)
    except _pack.PackError as e:
        return False, ResultError(f"cannot read the result of task {index} of job {seen.id}: {e}")
    if state == "succeeded" and header["kind"] == "value":
        return _value(seen, index, header, body)
    if state != "succeeded" and header["kind"] == "error" and header.get("attempt") == task.get("attempt"):
        return False, _raised(seen, task, header, body)
    return False, failure(seen, task)


def _value(seen: Seen, index: int, header: Json, body: bytes) -> Outcome:
    try:
        return True, loads(body)
    except Exception as e:
        other = f", which Python {header['python']} pickled" if header["python"] != _pack.PYTHON else ""
        error = ResultError(f"cannot rebuild the result of task {index} of job {seen.id}{other}: {e}", "its classes must be importable here: run this where your project is")
        error.__cause__ = e
        return False, error


def _raised(seen: Seen, task: Json, header: Json, body: bytes) -> BaseException:
    """The exception that a task raised, or what stands for it."""
    text = str(header.get("traceback") or "")
    if body:
        try:
            error = loads(body)
            if isinstance(error, Exception):
                error.__cause__ = RemoteTraceback(text)
                return error
        except Exception:
            pass
    type_name = str(header.get("type") or "Exception")
    said = str(header.get("text") or "")
    short = type_name[len("builtins.") :] if type_name.startswith("builtins.") else type_name
    message = f"task {task.get('index', 0)} of job {seen.id} raised {short}: {said}".rstrip(": ")
    return RemoteError(message, type_name=type_name, text=said, traceback=text, log=tail(seen, task), **_about(seen, task))


def _about(seen: Seen, task: Json) -> Dict[str, Any]:
    return {"job": seen.id, "index": int(task.get("index") or 0), "state": str(task["state"]), "cause": str(task.get("cause") or ""),
            "exit_code": int(task.get("exitCode") or 0) or 125}  # fmt: skip


_ENDS = {"failed": "failed", "cancelled": "was cancelled", "timedout": "ran out of time"}


def failure(seen: Seen, task: Json) -> TaskError:
    """The exception for a task that left none."""
    said = f"task {task.get('index', 0)} of job {seen.id} {_ENDS.get(str(task['state']), task['state'])}"
    if task.get("reason"):
        said += f": {task['reason']}"
    return TaskError(said, log=tail(seen, task), **_about(seen, task))


def tail(seen: Seen, task: Json) -> str:
    """The end of a task's stderr, empty if it cannot be had."""
    if not task.get("attempt"):
        return ""
    try:
        size = int(task.get("stderrBytes") or 0)
        data = b"".join(seen.backend.output(seen.id, int(task.get("index") or 0), "stderr", False, max(0, size - TAIL)))
    except Exception:
        return ""  # the error that is being made is the one that matters
    lines = data[-TAIL:].decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-20:])


def counts_of(statuses: Sequence[Mapping[str, Any]]) -> Dict[str, int]:
    """Tasks by state, over jobs.

    >>> counts_of([{"counts": {"queued": 2}}, {"counts": {"queued": 1, "succeeded": 3}}])
    {'queued': 3, 'succeeded': 3}
    """
    total: Dict[str, int] = {}
    for s in statuses:
        for state, n in (s.get("counts") or {}).items():
            total[state] = total.get(state, 0) + int(n)
    return total


def version_of(module: str) -> str:
    """The version of an installed module, empty where none can be told."""
    try:
        return str(getattr(importlib.import_module(module), "__version__", ""))
    except Exception:
        return ""


def indexes_of(job: Json) -> Sequence[int]:
    from . import _spec

    spec = job["spec"]
    return _spec.indexes(spec.get("array") or (f"0-{int(job['items']) - 1}" if job.get("items") else ""))
