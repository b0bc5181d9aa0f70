"""Jobs in processes of this host (``Pool("local")``), and in this very process (``Pool("debug")``).

They take the same specifications as the server and answer with the same JSON, so that what works here works there.
Jobs end with the process that made them.
"""

from __future__ import annotations

import atexit
import collections
import json
import os
import posixpath
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from datetime import datetime, timezone
from typing import Any, Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from . import _spec
from ._backend import ENDED, Json, Place
from .errors import InvalidError, NotFoundError

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
STATES = ("queued", "starting", "running", "succeeded", "failed", "cancelled", "timedout")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Task:
    """One task of a job, with its latest attempt."""

    __slots__ = ("index", "position", "state", "attempt", "failures", "cause", "reason", "exit", "signal", "started", "ended", "process", "told")

    def __init__(self, index: int, position: int) -> None:
        self.index, self.position = index, position
        self.state, self.attempt, self.failures = "queued", 0, 0
        self.cause = self.reason = self.started = self.ended = self.told = ""
        self.exit = self.signal = 0
        self.process: Optional["subprocess.Popen[bytes]"] = None

    def json(self, job: str) -> Json:
        found: Json = {"job": job, "index": self.index, "attempt": self.attempt, "state": self.state, "exitCode": self.exit}
        for name in ("cause", "reason", "signal", "started", "ended"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        return found


class Job:
    """A job in memory."""

    def __init__(self, id: str, spec: Json) -> None:
        self.id, self.spec = id, spec
        self.items: List[Any] = spec.get("items") or []
        indexes = _spec.indexes(spec.get("array") or (f"0-{len(self.items) - 1}" if self.items else ""))
        if self.items and len(indexes) != len(self.items):
            raise InvalidError(f"the job has {len(self.items)} items and {len(indexes)} indexes")
        self.tasks = [Task(i, p) for p, i in enumerate(indexes)]
        self.by_index = {t.index: t for t in self.tasks}
        self.queue: Deque[Task] = collections.deque(self.tasks)
        self.counts: Dict[str, int] = dict.fromkeys(STATES, 0)
        self.counts["queued"] = len(self.tasks)
        self.submitted, self.started, self.ended = now(), "", ""
        self.cancel = False
        self.calls: Optional[List[Any]] = None  # of the debug pool
        self.outcomes: Dict[int, Tuple[str, Any]] = {}
        self.rev = 0

    def move(self, task: Task, state: str) -> None:
        self.counts[task.state] -= 1
        self.counts[state] += 1
        task.state = state
        if not self.started and state != "queued":
            self.started = now()
        self.ended = (self.ended or now()) if self.state() in ENDED else ""

    def state(self) -> str:
        c = self.counts
        if c["starting"] or c["running"]:
            return "running"
        if c["queued"]:
            return "queued" if c["queued"] == len(self.tasks) else "running"
        return next((s for s in ("failed", "timedout", "cancelled") if c[s]), "succeeded")

    def running(self) -> int:
        return self.counts["starting"] + self.counts["running"]

    def status(self) -> Json:
        state = self.state()
        found: Json = {"id": self.id, "name": self.spec.get("name", ""), "externalId": self.spec.get("externalId", ""), "state": state,
                       "counts": {k: v for k, v in self.counts.items() if v}, "submitted": self.submitted, "rev": self.rev, "exitCode": 0}  # fmt: skip
        worst = next((t for t in self.tasks if t.state in ENDED and t.state != "succeeded"), None)
        if state in ENDED and worst is not None:
            found.update(exitCode=worst.exit or 125, cause=worst.cause, reason=worst.reason)
        for name in ("started", "ended"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        return found

    def json(self) -> Json:
        return dict(self.status(), spec=self.spec, user=_user(), items=len(self.items))


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())


class LocalBackend:
    """Runs tasks as processes, as many at a time as ``workers`` allow for."""

    inline = False

    def __init__(self, name: str = "local", workers: int = 0) -> None:
        self.name = name
        self.workers = workers or os.cpu_count() or 1
        self.directory = tempfile.mkdtemp(prefix="shoal-local-")
        self.jobs: Dict[str, Job] = {}
        self.changed = threading.Condition()
        self.closed = False
        self.rev = 0
        self._free = float(self.workers)
        self._active: Deque[Job] = collections.deque()
        self._dispatcher: Optional[threading.Thread] = None
        own = weakref.ref(self)
        atexit.register(lambda: (lambda b: b.close() if b else None)(own()))
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)  # of one that is gone before the end, too

    # ---- what a pool asks for

    def place(self) -> Place:
        return Place(posixpath.join(self.directory, "results"), True)

    def submit(self, specs: Sequence[Json]) -> List[Json]:
        answer = []
        with self.changed:
            if self.closed:
                raise InvalidError(f"pool {self.name} is closed")
            for spec in specs:
                known = next((j for j in self.jobs.values() if spec.get("externalId") and j.spec.get("externalId") == spec["externalId"]), None)
                if known is None:
                    job = Job(str(len(self.jobs) + 1), json.loads(json.dumps(spec)))
                    self.jobs[job.id] = job
                    self._active.append(job)
                    self._touch(job)
                answer.append({"id": known.id if known else job.id, "existing": known is not None})
            self._start()
        return answer

    def _start(self) -> None:
        if self._dispatcher is None:
            self._dispatcher = threading.Thread(target=self._dispatch, name="shoal-local", daemon=True)
            self._dispatcher.start()

    def _touch(self, job: Job) -> None:
        self.rev += 1
        job.rev = self.rev
        self.changed.notify_all()

    def find(self, id: str) -> Job:
        try:
            return self.jobs[str(id)]
        except KeyError:
            raise NotFoundError(f"there is no job {id} in pool {self.name}", "its jobs end with the process that made them") from None

    def status(self, ids: Sequence[str] = (), external: Sequence[str] = (), label: str = "", rev: int = 0) -> Tuple[List[Json], int]:
        key, _, value = label.partition("=")
        with self.changed:
            found = [self.jobs[i] for i in ids if i in self.jobs]
            found += [j for j in self.jobs.values() if j.spec.get("externalId") in external and j.spec.get("externalId")]
            if label:
                found += [j for j in self.jobs.values() if (j.spec.get("labels") or {}).get(key) == value]
            items = [j.status() for j in found if j.rev > rev]
            items += [{"id": i, "unknown": True} for i in ids if i not in self.jobs]
            return items, self.rev

    def job(self, id: str) -> Json:
        with self.changed:
            return self.find(id).json()

    def tasks(self, id: str, start: int = 0, limit: int = 0) -> Iterator[Json]:
        with self.changed:
            job = self.find(id)
            found = [t.json(id) for t in job.tasks if t.index >= start and t.attempt]
        return iter(found[:limit] if limit else found)

    def output(self, id: str, index: int, stream: str, follow: bool, offset: int = 0) -> Iterator[bytes]:
        job = self.find(id)
        task = job.tasks[0] if index < 0 else job.by_index.get(index)
        if task is None:
            raise NotFoundError(f"job {id} has no task {index}")
        return self._follow(job, task, self._log(job, task.index, stream), follow, offset)

    def _follow(self, job: Job, task: Task, path: str, follow: bool, offset: int) -> Iterator[bytes]:
        while True:
            over = task.state in ENDED
            if os.path.exists(path):
                with open(path, "rb") as f:
                    f.seek(offset)
                    data = f.read(1 << 20)
                if data:
                    offset += len(data)
                    yield data
                    continue
            if over or not follow:
                return
            with self.changed:
                self.changed.wait(0.05)

    def cancel(self, ids: Sequence[str]) -> None:
        with self.changed:
            for id in ids:
                job = self.jobs.get(str(id))
                if job is not None and job.state() not in ENDED:
                    self._cancel(job, "it was cancelled")

    def cancel_tasks(self, id: str, tasks: str) -> None:
        with self.changed:
            job = self.find(id)
            self._end(job, [job.by_index[i] for i in _spec.indexes(tasks) if i in job.by_index], "it was cancelled")

    def _cancel(self, job: Job, reason: str) -> None:
        job.cancel = True
        self._end(job, job.tasks, reason)

    def _end(self, job: Job, tasks: Sequence[Task], reason: str) -> None:
        gone = {t.index for t in tasks}
        job.queue = collections.deque(t for t in job.queue if t.index not in gone)
        for t in tasks:
            if t.state == "queued":
                t.attempt, t.cause, t.reason, t.exit = max(t.attempt, 1), "cancelled", reason, 125
                job.move(t, "cancelled")
            elif t.state in ("starting", "running"):
                t.told = "cancelled"
                self._signal(t, signal.SIGTERM)
        self._touch(job)

    def retry(self, id: str, tasks: str) -> None:
        with self.changed:
            job = self.find(id)
            wanted = set(_spec.indexes(tasks)) if tasks else {t.index for t in job.tasks}
            job.cancel = False
            for t in job.tasks:
                if t.index in wanted and t.state in ENDED and t.state != "succeeded":
                    t.failures, t.told, t.cause, t.reason = 0, "", "", ""
                    job.move(t, "queued")
                    job.queue.append(t)
                    job.outcomes.pop(t.index, None)
            if job not in self._active:
                self._active.append(job)
            self._touch(job)

    def files(self, id: str) -> Iterator[Json]:
        job = self.find(id)
        found = []
        for name in job.spec.get("outputs") or {}:
            top = self._output(job, name)
            for base, _, names in sorted(os.walk(top)):
                for n in sorted(names):
                    path = os.path.join(base, n)
                    found.append({"output": name, "path": os.path.relpath(path, top), "size": os.path.getsize(path)})
        return iter(found)

    def download(self, id: str, output: str, path: str) -> bytes:
        with open(os.path.join(self._output(self.find(id), output), path), "rb") as f:
            return f.read()

    def image(self, python: str) -> Json:
        return {"python": "%d.%d" % sys.version_info[:2], "version": sys.version.split()[0], "packages": None}

    def close(self) -> None:
        """Ends what runs and removes all files. Idempotent."""
        with self.changed:
            if self.closed:
                return
            self.closed = True
            for job in self.jobs.values():
                if job.state() not in ENDED:
                    self._cancel(job, "the pool was closed")
            self.changed.notify_all()
            running = [t.process for j in self.jobs.values() for t in j.tasks if t.process is not None]
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _kill(process, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- running

    def _dispatch(self) -> None:
        while True:
            with self.changed:
                found = self._next()
                while found is None and not self.closed:
                    self.changed.wait()
                    found = self._next()
                if self.closed or found is None:
                    return
                job, task = found
                need = self._need(job)
                self._free -= need
                task.attempt += 1
                task.started, task.ended, task.cause, task.reason, task.exit, task.signal = now(), "", "", "", 0, 0
                job.move(task, "starting")
                self._touch(job)
            threading.Thread(target=self._attempt, args=(job, task, need), name=f"shoal-{job.id}.{task.index}", daemon=True).start()

    def _need(self, job: Job) -> float:
        return min(float((job.spec.get("resources") or {}).get("cpus") or 1), float(self.workers))

    def _next(self) -> Optional[Tuple[Job, Task]]:
        for job in list(self._active):
            if job.state() in ENDED:
                self._active.remove(job)
                continue
            if not self._unblocked(job):
                continue
            most = job.spec.get("maxRunning") or 0
            if job.queue and self._need(job) <= self._free + 1e-9 and not (most and job.running() >= most):
                return job, job.queue.popleft()
        return None

    def _unblocked(self, job: Job) -> bool:
        """Whether the jobs that it is to run after have ended as they should; one that cannot be any more is cancelled."""
        for dependency in job.spec.get("after") or []:
            id, _, condition = str(dependency).partition(":")
            other = self.jobs.get(id)
            state = other.state() if other is not None else "cancelled"
            if state not in ENDED:
                return False
            if {"": state == "succeeded", "ok": state == "succeeded", "any": True, "failed": state != "succeeded"}.get(condition) is not True:
                self._cancel(job, f"job {id}, after which it was to run, {'succeeded' if state == 'succeeded' else 'was ' + state if state == 'cancelled' else state}")
                return False
        return True

    def _attempt(self, job: Job, task: Task, need: float) -> None:
        try:
            code = self._run(job, task)
        except OSError as e:
            code, task.cause, task.reason = 125, "setupFailed", f"its command could not be started: {e}"
        with self.changed:
            self._free += need
            self._ended(job, task, code)
            self._touch(job)

    def _ended(self, job: Job, task: Task, code: int) -> None:
        task.process, task.ended = None, now()
        task.exit = code if code >= 0 else 128 - code
        task.signal = max(0, -code)
        if task.told == "cancelled":
            task.cause, task.reason = "cancelled", "it was cancelled"
            job.move(task, "cancelled")
            return
        if code == 0 and not task.told:
            job.move(task, "succeeded")
            return
        task.failures += 1
        if task.told == "timeLimit":
            task.cause, task.reason = "timeLimit", f"it ran longer than its time limit of {job.spec.get('timeLimit')}"
        elif not task.cause:
            task.cause = "signal" if code < 0 else "exit"
            task.reason = f"it was ended by signal {-code}" if code < 0 else f"it exited with {code}"
        on = (job.spec.get("retry") or {}).get("on")
        if task.failures <= (job.spec.get("retries") or 0) and not job.cancel and (not on or task.cause in on):
            task.told = ""
            job.move(task, "queued")
            job.queue.append(task)
            return
        job.move(task, "timedout" if task.told else "failed")
        most = job.spec.get("maxFails") or 0
        if most and job.counts["failed"] + job.counts["timedout"] >= most and not job.cancel:
            self._cancel(job, f"{most} tasks of the job had failed")

    def _run(self, job: Job, task: Task) -> int:
        spec = job.spec
        for stream in ("stdout", "stderr"):
            os.makedirs(os.path.dirname(self._log(job, task.index, stream)), exist_ok=True)
        for name in spec.get("outputs") or {}:
            os.makedirs(self._output(job, name), exist_ok=True)
        command, env = self.order(job, task)
        limit = _spec.duration(spec.get("timeLimit"))
        with open(self._log(job, task.index, "stdout"), "wb") as out, open(self._log(job, task.index, "stderr"), "wb") as err:
            with self.changed:
                if task.told or self.closed:
                    task.told = task.told or "cancelled"
                    return -signal.SIGTERM
                task.process = process = subprocess.Popen(["/bin/sh", "-c", command], cwd=spec.get("workdir") or None, env=env,
                                                          stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)  # fmt: skip
                job.move(task, "running")
                self._touch(job)
            try:
                return self._await(spec, task, process, limit)
            finally:
                _kill(process, signal.SIGKILL)  # what it left behind in its group

    def _await(self, spec: Json, task: Task, process: "subprocess.Popen[bytes]", limit: Optional[float]) -> int:
        ends: List[Tuple[float, str]] = []
        begun = time.monotonic()
        if limit is not None:
            name, _, ahead = str(spec.get("signal") or "").partition("@")
            if name:
                ends.append((max(0.0, limit - _spec.seconds(ahead or "60s")), name))
            ends += [(limit, "TERM"), (limit + GRACE, "KILL")]
        for after, name in ends:
            try:
                return process.wait(max(0.0, begun + after - time.monotonic()))
            except subprocess.TimeoutExpired:
                if name in ("TERM", "KILL"):
                    task.told = task.told or "timeLimit"
                _kill(process, getattr(signal, "SIG" + name.replace("SIG", "")))
        while True:
            try:
                return process.wait(1.0 if task.told != "cancelled" else GRACE)
            except subprocess.TimeoutExpired:
                if task.told == "cancelled":
                    _kill(process, signal.SIGKILL)

    def order(self, job: Job, task: Task) -> Tuple[str, Dict[str, str]]:
        """A task's command and variables."""
        spec, command = job.spec, str(job.spec.get("command") or "")
        env = dict(os.environ)
        env.update(spec.get("env") or {})
        env.update(SHOAL_JOB_ID=job.id, SHOAL_JOB_NAME=str(spec.get("name") or ""), SHOAL_TASK_INDEX=str(task.position),
                   SHOAL_ARRAY_INDEX=str(task.index), SHOAL_ATTEMPT=str(task.attempt), SHOAL_RESTART_COUNT=str(task.attempt - 1),
                   SHOAL_NODE_RANK="0", SHOAL_NODE_COUNT="1", SHOAL_POOL=self.name)  # fmt: skip
        if job.items:
            fields = item_variables(job.items[task.position])
            env.update(fields)
            command = substitute(command, job.items[task.position])
        for name, value in (spec.get("inputs") or {}).items():
            env["SHOAL_INPUT_" + name.upper()] = value
        for name in spec.get("outputs") or {}:
            env["SHOAL_OUTPUT_" + name.upper()] = self._output(job, name)
        return command, env

    def _output(self, job: Job, name: str) -> str:
        told = job.spec["outputs"][name]
        path, reuse = (told, False) if isinstance(told, str) else (told["path"], told.get("reuse", False))
        return str(path) if reuse else posixpath.join(path, job.id)

    def _log(self, job: Job, index: int, stream: str) -> str:
        return os.path.join(self.directory, "logs", job.id, f"{index}.{stream}")

    def _signal(self, task: Task, number: int) -> None:
        if task.process is not None:
            _kill(task.process, number)


def item_variables(item: Any) -> Dict[str, str]:
    """What a task sees of its item.

    >>> item_variables({"lr": 0.1, "name": "a b"})["PARAM_LR"]
    '0.1'
    """
    word = item if isinstance(item, str) else json.dumps(item, separators=(",", ":"))
    env = {"SHOAL_ITEM": word}
    if isinstance(item, dict):
        for k, v in item.items():
            env["PARAM_" + re.sub(r"[^A-Z0-9_]", "_", k.upper())] = v if isinstance(v, str) else json.dumps(v, separators=(",", ":"))
    return env


def substitute(command: str, item: Any) -> str:
    """Puts an item's fields into a command.

    >>> substitute("train --lr {lr} ${HOME} {other}", {"lr": 0.1})
    'train --lr 0.1 ${HOME} {other}'
    """
    if not isinstance(item, dict):
        return command
    words: Mapping[str, str] = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in item.items()}
    return re.sub(r"(?<!\$)\{([^{}]+)\}", lambda m: words.get(m.group(1), m.group(0)), command)


def _kill(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


class DebugBackend(LocalBackend):
    """Runs everything in the calling thread, one task after the other, when somebody looks: breakpoints hit, and
    exceptions come with their own frames."""

    inline = True

    def __init__(self, name: str = "debug") -> None:
        super().__init__(name, 1)
        self._running: Set[str] = set()

    def _start(self) -> None:
        pass

    def submit_calls(self, spec: Json, calls: List[Any]) -> Json:
        """Takes functions as they are, without a pickle."""
        answer = self.submit([dict(spec, array=f"0-{len(calls) - 1}")])[0]
        self.jobs[answer["id"]].calls = self.jobs[answer["id"]].calls or list(calls)
        return answer

    def status(self, ids: Sequence[str] = (), external: Sequence[str] = (), label: str = "", rev: int = 0) -> Tuple[List[Json], int]:
        for id in ids:
            if id in self.jobs:
                self.step(self.jobs[id])
        return super().status(ids, external, label, rev)

    def output(self, id: str, index: int, stream: str, follow: bool, offset: int = 0) -> Iterator[bytes]:
        while follow and self.step(self.find(id)):
            pass
        return super().output(id, index, stream, False, offset)

    def step(self, job: Job) -> bool:
        """Runs the next task of a job, and before it the jobs that it waits for; False if none waits."""
        for dependency in job.spec.get("after") or []:
            other = self.jobs.get(str(dependency).partition(":")[0])
            while other is not None and self.step(other):
                pass
        with self.changed:
            if not job.queue or job.cancel or job.id in self._running or not self._unblocked(job):
                return False
        task = job.queue.popleft()
        task.attempt += 1
        task.started = now()
        job.move(task, "running")
        self._running.add(job.id)
        try:
            code = self._call(job, task) if job.calls is not None else self._inline(job, task)
        except BaseException:  # a debugger was left, or Ctrl-C: the task waits again
            job.move(task, "queued")
            job.queue.appendleft(task)
            raise
        finally:
            self._running.discard(job.id)
        with self.changed:
            self._ended(job, task, code)
            self._touch(job)
        return True

    def _call(self, job: Job, task: Task) -> int:
        from ._worker import finish

        function, args, kwargs = (job.calls or [])[task.position]
        try:
            job.outcomes[task.index] = ("value", finish(function(*args, **kwargs)))
        except Exception as e:
            job.outcomes[task.index] = ("error", e)
            return 1
        return 0

    def _inline(self, job: Job, task: Task) -> int:
        for name in job.spec.get("outputs") or {}:
            os.makedirs(self._output(job, name), exist_ok=True)
        command, env = self.order(job, task)
        os.makedirs(os.path.dirname(self._log(job, task.index, "stdout")), exist_ok=True)
        with open(self._log(job, task.index, "stdout"), "wb") as out, open(self._log(job, task.index, "stderr"), "wb") as err:
            return subprocess.run(["/bin/sh", "-c", command], cwd=job.spec.get("workdir") or None, env=env, stdout=out, stderr=err).returncode
