"""Handles on jobs."""

from __future__ import annotations

import asyncio
import codecs
import os
import time
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from . import _show
from ._backend import ENDED, Backend, Json, Pause
from ._track import Seen, failure, indexes_of, look, outcome, wait_until
from .errors import InvalidError, NotFoundError, ShoalError, WaitTimeout


class Status(NamedTuple):
    """What a job or task is like now.

    ``state`` is queued, starting, running, succeeded, failed, cancelled or timedout; ``reason`` a sentence, for what
    waits as for what failed; ``counts`` tasks by state; ``exit_code`` as of ``shoal job wait``, meaningful once ended.
    """

    state: str
    reason: str
    counts: Dict[str, int]
    exit_code: int
    cause: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class File(NamedTuple):
    """A file in one of a job's outputs: ``size`` in bytes, ``path`` below the output."""

    output: str
    path: str
    size: int


class Job:
    """A job, or one task of an array.

    What :meth:`Pool.submit` returns has the function's result; what :meth:`Pool.run` returns has an exit code. The
    handle holds nothing but a number: ``pool.job(id)`` makes another, in another process too.
    """

    def __init__(self, seen: Optional[Seen], index: Optional[int] = None, name: str = "") -> None:
        self._seen_or_none = seen
        self._index = index
        self._name = name

    # ---- who it is

    @property
    def _seen(self) -> Seen:
        if self._seen_or_none is None:
            raise InvalidError("the job is not submitted yet: that happens when the block of p.batch() ends")
        return self._seen_or_none

    @property
    def id(self) -> str:
        """The job's number; of a task of an array ``number/index``, as the command line writes it."""
        return self._seen.id if self._index is None or self._alone else f"{self._seen.id}/{self._index}"

    @property
    def _alone(self) -> bool:
        return self._seen.indexes is not None and len(self._seen.indexes) == 1

    @property
    def name(self) -> str:
        return self._name or str(self._seen.job["spec"].get("name") or "")

    @property
    def spec(self) -> Json:
        """The job as it was submitted, as the API has it."""
        return dict(self._seen.job["spec"])

    def __repr__(self) -> str:
        if self._seen_or_none is None:
            return "<shoal.Job not submitted yet>"
        return f"<shoal.Job {self.id}{f' {self._name}' if self._name else ''}: {self._seen.status.get('state')}>"

    def __getitem__(self, index: int) -> "Job":
        """One task of an array, by its index."""
        self._know_tasks()
        if index not in (self._seen.indexes or ()):
            raise NotFoundError(f"job {self._seen.id} has no task {index}")
        return Job(self._seen, index, self._name)

    def __len__(self) -> int:
        """How many tasks it has."""
        self._know_tasks()
        return len(self._seen.indexes or ()) if self._index is None else 1

    def __iter__(self) -> Iterator["Job"]:
        self._know_tasks()
        return (Job(self._seen, i, self._name) for i in self._seen.indexes or ())

    def _know_tasks(self) -> None:
        if self._seen.indexes is None:
            self._seen.indexes = indexes_of(self._seen.job)
            self._seen.rev = 0
            self._seen.behind = True

    # ---- what it is like

    def status(self) -> Status:
        """Asks the server. A task is ``queued`` until it has ended or its job's tasks are looked at."""
        if self._index is not None:
            self._know_tasks()
        look([self._seen])
        s = self._seen.status
        if self._index is not None and not self._alone:
            task = self._seen.ended.get(self._index) or self._task() or {"state": "queued"}
            return Status(task["state"], str(task.get("reason") or ""), {task["state"]: 1}, int(task.get("exitCode") or 0), str(task.get("cause") or ""))
        return Status(str(s.get("state")), str(s.get("reason") or ""), dict(s.get("counts") or {}), int(s.get("exitCode") or 0), str(s.get("cause") or ""))

    def _task(self) -> Optional[Json]:
        return next((t for t in self._seen.backend.tasks(self._seen.id, self._index or 0, 1) if int(t.get("index") or 0) == self._index), None)

    @property
    def state(self) -> str:
        return self.status().state

    def done(self) -> bool:
        """Whether it has ended. Asks the server unless that is known."""
        if not self._over():
            look([self._seen])
        return self._over()

    def _over(self) -> bool:
        if self._index is not None:
            if self._seen.indexes is None:
                self._know_tasks()
            return self._index in self._seen.ended
        return self._seen.over and not self._seen.behind

    def wait(self, timeout: Optional[float] = None, progress: Optional[bool] = None) -> "Job":
        """Waits for its end, also over restarts of the server, and returns itself.

        ``timeout`` is in seconds; :class:`WaitTimeout` then, and the job goes on. ``progress`` shows how far it is;
        by default in notebooks.
        """
        bar = _show.progress(self, progress)
        over = wait_until(self._over, lambda: [self._seen], timeout, bar.update)
        bar.close()
        if not over:
            raise WaitTimeout(f"job {self.id} has not ended within {timeout} s", "it goes on; ask again, or cancel() it")
        return self

    # ---- what came of it

    def result(self, timeout: Optional[float] = None) -> Any:
        """Waits and returns what the function returned; of a command its exit code, 0.

        Raises what the function raised, in its original type and with the remote traceback as its cause;
        :class:`TaskError` where a task ended without a result; :class:`WaitTimeout`.
        """
        good, value = self._outcome(timeout)
        if good:
            return value
        raise value

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Waits and returns what :meth:`result` would raise, ``None`` if it would return."""
        good, value = self._outcome(timeout)
        return None if good else value

    def _outcome(self, timeout: Optional[float]) -> Any:
        self.wait(timeout, False)
        if self._index is not None:
            return outcome(self._seen, self._index)
        s = self._seen.status
        if s["state"] == "succeeded":
            return True, 0
        for task in self._seen.backend.tasks(self._seen.id):
            if task.get("state") in ENDED and task["state"] != "succeeded":
                return False, failure(self._seen, task)
        return False, failure(self._seen, {"state": s["state"], "reason": s.get("reason"), "index": 0})

    def __await__(self) -> Generator[Any, None, Any]:
        """``await job`` is :meth:`result` without blocking the loop."""
        return asyncio.get_running_loop().run_in_executor(None, self.result).__await__()

    # ---- what it says

    def logs(self, stream: str = "stdout", task: Optional[int] = None) -> str:
        """What it has written so far. ``task`` is an index, needed where there are several."""
        data = b"".join(self._seen.backend.output(self._seen.id, self._which(task), stream, False))
        return data.decode("utf-8", "replace")

    def follow(self, stream: str = "stdout", task: Optional[int] = None) -> Iterator[str]:
        """What it writes, as it comes, to the true end; without a lost or doubled character over restarts."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        for data in self._seen.backend.output(self._seen.id, self._which(task), stream, True):
            text = decode(data)
            if text:
                yield text
        text = decode(b"", True)
        if text:
            yield text

    def _which(self, task: Optional[int]) -> int:
        if task is not None:
            return task
        if self._index is not None:
            return self._index
        self._know_tasks()
        indexes = self._seen.indexes or [0]
        if len(indexes) > 1:
            raise InvalidError(f"job {self.id} has {len(indexes)} tasks", f"say which, as in task={indexes[0]}")
        return indexes[0]

    # ---- what is done to it

    def cancel(self) -> None:
        """Asks for the end of the job, or of the one task of an array that this is. Does not wait for it."""
        if self._index is not None and not self._alone:
            self._seen.backend.cancel_tasks(self._seen.id, str(self._index))
        else:
            self._seen.backend.cancel([self._seen.id])

    def retry(self) -> None:
        """Starts again the tasks that did not succeed. The job must have ended."""
        self._seen.backend.retry(self._seen.id, "" if self._index is None else str(self._index))
        self._seen.again()

    def files(self) -> List[File]:
        """The files in its outputs."""
        found = []
        for f in self._seen.backend.files(self._seen.id):
            if not f.get("dir"):
                found.append(File(str(f.get("output")), str(f.get("path")), int(f.get("size") or 0)))
        return found

    def read(self, path: str, output: Optional[str] = None) -> bytes:
        """The content of a file in an output (by default in its only one), whole."""
        return self._seen.backend.download(self._seen.id, output or self._only_output(), path)

    def save(self, directory: str, output: Optional[str] = None) -> List[str]:
        """Copies the files of an output below a directory of this host; returns their paths."""
        output = output or self._only_output()
        saved = []
        top = os.path.realpath(directory)
        for f in self.files():
            path = os.path.realpath(os.path.join(top, f.path))
            if f.output != output or not path.startswith(top + os.sep):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                out.write(self.read(f.path, output))
            saved.append(path)
        return saved

    def _only_output(self) -> str:
        outputs = list(self._seen.job["spec"].get("outputs") or {})
        if len(outputs) != 1:
            raise InvalidError(f"job {self.id} has {len(outputs)} outputs", f"say which: {', '.join(outputs)}" if outputs else "a job's outputs are named when it is submitted")
        return str(outputs[0])

    def _repr_html_(self) -> str:
        return _show.jobs_html([self])


def wait(jobs: Iterable[Job], timeout: Optional[float] = None) -> List[Job]:
    """Waits for all of them; returns them in the order given."""
    all_ = list(jobs)
    for _ in as_completed(all_, timeout):
        pass
    return all_


def as_completed(jobs: Iterable[Job], timeout: Optional[float] = None) -> Iterator[Job]:
    """Yields jobs as they end. ``timeout`` is in seconds, for all of them; :class:`WaitTimeout` then."""
    left: List[Job] = list(jobs)
    pause = Pause(any(j._seen.backend.inline for j in left))
    deadline = None if timeout is None else time.monotonic() + timeout
    while left:
        by_backend: Dict[int, Dict[str, Seen]] = {}
        for j in left:
            if j._index is not None:
                j._know_tasks()
            by_backend.setdefault(id(j._seen.backend), {})[j._seen.id] = j._seen
        begun = time.monotonic()
        over = [j for j in left if j._over()]
        if not over:
            for seen in by_backend.values():
                if look(list(seen.values())):
                    pause.reset()
            over = [j for j in left if j._over()]
        if over:
            gone = {id(j) for j in over}
            left = [j for j in left if id(j) not in gone]
            yield from over
        elif not pause.wait(deadline, 3 * (time.monotonic() - begun)):
            raise WaitTimeout(f"{len(left)} jobs have not ended within {timeout} s", "they go on; ask again, or cancel() them")


def cancel_all(backend: Backend, seen: Sequence[Seen]) -> None:
    """Cancels jobs in one request."""
    ids = [s.id for s in seen if not s.over]
    if ids:
        backend.cancel(ids)


def ignore(call: Callable[[], Any]) -> None:
    """Does something whose failure changes nothing."""
    try:
        call()
    except ShoalError:
        pass
