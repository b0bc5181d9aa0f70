"""A function over many inputs: sent in parts of 1,000, results where they are until somebody reads them."""

from __future__ import annotations

import collections
import itertools
import time
import warnings
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Generic, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, TypeVar

from . import _show
from ._backend import CHUNK, MAX_ITEM, MAX_ITEMS, MAX_SENT, Json, Pause, remove_results
from ._job import Job, cancel_all
from ._pack import digest
from ._ship import Parcel, mark_of
from ._track import Seen, counts_of, indexes_of, look, outcome
from .errors import ConflictError, DeniedError, InvalidError, NotFoundError, ShoalError, WaitTimeout

if TYPE_CHECKING:
    from ._pool import Pool

R = TypeVar("R")

WINDOW = 8 * CHUNK  # tasks that may be under way before more inputs are taken
HASTE = 0.5  # seconds that inputs wait for others to go with
MAX_FILE = 256 << 20  # bytes of arguments in one file
ERRORS = ("raise", "return", "skip")


class Failure(NamedTuple):
    """An input whose task did not succeed: its number among the inputs, from 0, and what :meth:`Job.exception` says."""

    input: int
    error: BaseException


class Plan(NamedTuple):
    """How a map's jobs are made; ``submit`` makes one of a part's pickled calls or, in debug, of the calls."""

    parcel: Optional[Parcel]
    submit: Callable[["Part"], Json]
    calls: Iterator[Tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]]
    size: Optional[int]  # inputs, where that is known
    hasty: bool  # inputs that come slowly go in smaller parts
    one_by_one: bool  # a limit counts over all parts: only one may be under way
    max_fails: int


class Part(NamedTuple):
    """Inputs that become one job."""

    number: int
    calls: List[Any]
    blobs: List[bytes]
    last: bool
    mark: str  # tells these inputs from others
    fails: int  # failures that are still allowed, 0 for any number


class Map(Generic[R]):
    """What :meth:`Pool.map` returns: an iterable of results that is also a handle.

    Results come lazily, in the order of the inputs or (``ordered=False``) as they come; iterating again begins again,
    since results stay on the share. ``len()`` is the number of inputs, once that is known. A map lives on when this
    process ends: :meth:`open` finds it by its name.
    """

    def __init__(self, pool: "Pool", name: str, plan: Optional[Plan], ordered: bool = True, errors: str = "raise") -> None:
        if errors not in ERRORS:
            raise InvalidError(f"errors is {errors!r}", "it is raise, return or skip")
        self.pool = pool
        self.name = name
        self.ordered = ordered
        self.errors = errors
        self._plan = plan
        self._ahead: Deque[Tuple[Any, bytes]] = collections.deque()
        self._parts: List[Seen] = []
        self._starts: List[int] = []  # the number of the first input of each part
        self._sent = 0
        self._complete = plan is None
        self._cursor: Optional[Iterator[R]] = None
        self._began = time.monotonic()

    # ---- finding

    @classmethod
    def open(cls, name: str, pool: Any = "", trust: bool = False, ordered: bool = True, errors: str = "raise") -> "Map[Any]":
        """Finds a map by its name, from any process of the same user.

        ``pool`` is a pool or its name, by default that of the map's jobs. Results are pickles, and reading them runs what they say: those
        of another user are read only with ``trust=True``. Raises :class:`NotFoundError`.
        """
        from ._pool import Pool

        p = pool if isinstance(pool, Pool) else Pool(pool or "", check=False)
        found, _ = p._backend.status(label=f"{LABEL}={name}")
        if not found:
            raise NotFoundError(f"there is no map {name}", "maps are found by whoever made them; p.map(..., name=) gives a name")
        m: Map[Any] = cls(p, name, None, ordered, errors)
        newest = max(generation(s) for s in found)
        found = [s for s in found if generation(s) == newest]
        last = False
        for status in sorted(found, key=lambda s: int(s.get("id") or 0)):
            seen = Seen(p._backend, str(status["id"]))
            seen.indexes = indexes_of(seen.job)
            seen.behind = True
            if not p.name:
                p._adopt(str(seen.job["spec"]["pool"]))
            if not trust and not p._own(seen.job):
                raise DeniedError(f"map {name} is {seen.job.get('user')}'s", "reading its results runs her code as you: trust=True does it nevertheless")
            m._add(seen)
            last = last or (seen.job["spec"].get("labels") or {}).get(LAST) == "true"
        m._complete = last
        return m

    @property
    def complete(self) -> bool:
        """Whether all inputs were sent. A map whose process died before can be made whole by the same call with the
        same ``name`` and inputs, which sends what is missing."""
        return self._complete

    def _add(self, seen: Seen) -> None:
        self._starts.append(self._sent)
        self._parts.append(seen)
        self._sent += len(seen.indexes or ())

    # ---- sending

    def _under_way(self) -> int:
        return sum(len(p.indexes or ()) - len(p.ended) for p in self._parts if len(p.ended) < len(p.indexes or ()))

    def _fails(self) -> int:
        return sum(1 for p in self._parts for t in p.ended.values() if t["state"] != "succeeded")

    def _room(self) -> bool:
        plan = self._plan
        if self._complete or plan is None:
            return False
        if plan.max_fails and self._fails() >= plan.max_fails:
            return False
        if plan.one_by_one:
            return self._under_way() == 0
        return self._under_way() < (CHUNK if self.pool._backend.inline else WINDOW)

    def _feed(self, all_: bool = False) -> None:
        """Sends inputs while there is room, or all of them."""
        while not self._complete and (self._room() if not (all_ and self._plan and not self._plan.one_by_one) else True):
            self._send()

    def _send(self) -> None:
        plan = self._plan
        if plan is None:
            return
        calls, blobs = self._take(plan)
        last = not self._ahead and not self._look_ahead(plan)
        if not calls:
            self._complete = True
            return
        mark = ""
        if blobs and not plan.hasty:
            mark = digest("".join(mark_of(args, kwargs, blob) for (_, args, kwargs), blob in zip(calls, blobs)).encode())
        fails = max(1, plan.max_fails - self._fails()) if plan.max_fails else 0
        part = Part(len(self._parts), calls, blobs, last, mark, fails)
        job = plan.submit(part)
        seen = Seen(self.pool._backend, str(job["id"]), range(len(calls)))
        if job.get("existing"):
            self._same(seen, part)
        self._add(seen)
        self._complete = last

    def _take(self, plan: Plan) -> Tuple[List[Any], List[bytes]]:
        """The next part's calls, pickled unless they stay in this process."""
        calls: List[Any] = []
        blobs: List[bytes] = []
        size, large = 0, False
        begun = time.monotonic()
        direct = plan.parcel is not None and self.pool._backend.place().direct
        while len(calls) < CHUNK and (self._ahead or self._look_ahead(plan)):
            call, blob = self._ahead[0]
            # What cannot be an item makes a file of its part, and there is a bound on files that a job writes.
            large = large or len(blob) > MAX_ITEM
            limit = MAX_FILE if direct else MAX_SENT - (64 << 10) if large else MAX_ITEMS
            if calls and (size + len(blob) > limit or (plan.hasty and time.monotonic() - begun > HASTE)):
                break
            self._ahead.popleft()
            calls.append(call)
            size += len(blob)
            if plan.parcel is not None:
                blobs.append(blob)
        return calls, blobs

    def _look_ahead(self, plan: Plan) -> bool:
        try:
            call = next(plan.calls)
        except StopIteration:
            return False
        except BaseException:
            self._plan = None  # whatever comes after, this is not all of it
            raise
        self._ahead.append((call, plan.parcel.blobs([call])[0] if plan.parcel is not None else b""))
        return True

    def _same(self, seen: Seen, part: Part) -> None:
        """Makes sure that a part that was there before is this one."""
        labels = seen.job["spec"].get("labels") or {}
        if len(indexes_of(seen.job)) != len(part.calls) or (labels.get(MARK) or part.mark) != part.mark:
            raise ConflictError(
                f"cannot send map {self.name}: there is one of that name, with other inputs",
                f'take another name, look at it with Map.open("{self.name}"), or begin anew with replace=True',
            )
        code = self._plan.parcel.mark() if self._plan is not None and self._plan.parcel is not None else ""
        if code and part.number == 0 and labels.get(CODE, code) != code:
            warnings.warn(f"map {self.name} was sent before, with other code: its results are those of then; replace=True begins anew", stacklevel=4)

    # ---- what it is like

    def __len__(self) -> int:
        if self._complete:
            return self._sent
        if self._plan is not None and self._plan.size is not None:
            return self._plan.size
        raise TypeError("the number of inputs is not known before all were taken")

    def __repr__(self) -> str:
        return f"<shoal.Map {self.name}: {_show.words(self._counts())}>"

    def _counts(self) -> Dict[str, int]:
        return counts_of([p.status for p in self._parts])

    def _progress(self) -> Tuple[Dict[str, int], Optional[int]]:
        return self._counts(), (self._plan.size if self._plan is not None and not self._complete else self._sent)

    def status(self) -> Dict[str, int]:
        """Asks the server for the numbers of tasks by state; of what was sent."""
        look(self._parts)
        return self._counts()

    def done(self) -> bool:
        """Whether all inputs were sent and all tasks have ended."""
        if not self._over():
            look(self._parts)
        return self._over()

    def _over(self) -> bool:
        stopped = self._plan is not None and bool(self._plan.max_fails) and self._fails() >= self._plan.max_fails
        return (self._all_sent() or stopped) and self._under_way() == 0

    def _all_sent(self) -> bool:
        """Whether nothing more is going to be sent by this handle."""
        return self._complete or self._plan is None

    def jobs(self) -> List[Job]:
        """The jobs that it was sent as: one for each 1,000 inputs."""
        return [Job(p, None, self.name) for p in self._parts]

    def job(self, index: int) -> Job:
        """The task of an input, by its number from 0: for its logs, or its state."""
        for p, start in zip(self._parts, self._starts):
            indexes = p.indexes or ()
            if start <= index < start + len(indexes):
                return Job(p, indexes[index - start], self.name)
        raise NotFoundError(f"map {self.name} has no input {index}" + ("" if self._complete else " yet"))

    def reasons(self) -> Dict[str, int]:
        """Why tasks wait or have failed: sentences, and how many tasks each is about."""
        look(self._parts)
        found: Dict[str, int] = {}
        for p in self._parts:
            waits = int((p.status.get("counts") or {}).get("queued") or 0)
            if p.status.get("reason") and not p.over and waits:
                found[str(p.status["reason"])] = found.get(str(p.status["reason"]), 0) + waits
            for t in p.ended.values():
                if t["state"] != "succeeded":
                    reason = str(t.get("reason") or t["state"])
                    found[reason] = found.get(reason, 0) + 1
        return found

    # ---- waiting and reading

    def wait(self, timeout: Optional[float] = None, progress: Optional[bool] = None) -> "Map[R]":
        """Sends what is left to send and waits for all tasks; returns itself.

        ``timeout`` is in seconds; :class:`WaitTimeout` then, and the tasks go on. ``progress`` shows how far it is; by
        default in notebooks.
        """
        bar = _show.progress(self, progress)
        try:
            self._until(self._over, timeout, bar)
        finally:
            bar.close()
        return self

    def _until(self, done: Callable[[], bool], timeout: Optional[float], bar: _show.Progress) -> None:
        pause = Pause(self.pool._backend.inline)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._feed()
            if done():
                return
            begun = time.monotonic()
            if look(self._parts):
                pause.reset()
                bar.update()
                if done():
                    return
            if not pause.wait(deadline, 3 * (time.monotonic() - begun)) and not done():
                raise WaitTimeout(f"map {self.name} has not ended within {timeout} s", "it goes on; ask again, or cancel() it")

    def __iter__(self) -> Iterator[R]:
        return _Results(self)

    def __next__(self) -> R:
        if self._cursor is None:
            self._cursor = iter(self)
        return next(self._cursor)

    def results(self) -> List[R]:
        """All results, in the order of the inputs whatever ``ordered`` says. With ``errors="skip"`` there are fewer than inputs."""
        self.wait()
        return list(_Results(self, ordered=True))

    def result(self, index: int) -> R:
        """Waits for the result of an input, by its number from 0, and returns or raises it as a job does."""
        if index >= self._sent:
            self._until(lambda: index < self._sent or self._all_sent() or self._over(), None, _show.Progress())
        value: R = self.job(index).result()
        return value

    @property
    def failed(self) -> List[Failure]:
        """The inputs whose tasks have failed so far, each with its exception. Asks the server once."""
        look(self._parts)
        found = []
        for p, start in zip(self._parts, self._starts):
            for i in sorted(p.ended):
                if p.ended[i]["state"] != "succeeded":
                    found.append(Failure(start + i, outcome(p, i)[1]))
        return found

    def __aiter__(self) -> "_AsyncResults[R]":
        return _AsyncResults(iter(self))

    def dataframe(self) -> Any:
        """The results as a pandas DataFrame, a row each; needs pandas. Dicts become columns."""
        try:
            import pandas
        except ImportError:
            raise ShoalError("a data frame needs pandas, which is not installed", "list(m) gives the results without") from None
        return pandas.DataFrame(list(self))

    # ---- doing something to it

    def cancel(self) -> None:
        """Asks for the end of all tasks, and sends no more. Does not wait."""
        self._plan, self._complete = None, True
        self._ahead.clear()
        look(self._parts)
        cancel_all(self.pool._backend, self._parts)

    def retry(self) -> "Map[R]":
        """Starts again the tasks that did not succeed, with the inputs and the code of then; returns itself.

        Only parts (1,000 inputs) that have ended are started again.
        """
        look(self._parts)
        for p in self._parts:
            if p.over and any(t["state"] != "succeeded" for t in p.ended.values()):
                p.backend.retry(p.id, "")
                p.again()
        self._cursor = None
        return self

    def delete(self) -> None:
        """Cancels what runs and removes the results and what was sent; the jobs' records go with the server's history.
        ``p.map(..., name=, replace=True)`` does this before it begins anew under the same name."""
        self.cancel()
        self._until(self._over, 60.0, _show.Progress())
        remove_results(self.pool._backend, [p.job for p in self._parts])

    def _repr_html_(self) -> str:
        self.status()
        rows = [[_show.escape(self.name), _show.bar_html(*self._progress()), _show.escape(_show.words(self._counts()))]]
        rows += [["", _show.escape(f"{n} ×"), _show.escape(reason)] for reason, n in sorted(self.reasons().items(), key=lambda r: -r[1])[:5]]
        return _show.table_html(["map", "", "tasks"], rows)


class _Results(Iterator[R]):
    """One reading of a map's results."""

    def __init__(self, m: Map[R], ordered: Optional[bool] = None) -> None:
        self.map = m
        self.ordered = m.ordered if ordered is None else ordered
        self.next = 0
        self.given: Dict[str, Set[int]] = {}
        self.ready: Deque[Tuple[Seen, int]] = collections.deque()
        self.bar: Optional[_show.Progress] = None

    def __next__(self) -> R:
        if self.bar is None:
            self.bar = _show.progress(self.map, None)
        while True:
            found = self._ordered() if self.ordered else self._any()
            if found is None:
                self.bar.close()
                raise StopIteration
            seen, index = found
            good, value = outcome(seen, index)
            if good or self.map.errors == "return":
                return value  # type: ignore[no-any-return]
            if self.map.errors == "raise":
                raise value

    def _ordered(self) -> Optional[Tuple[Seen, int]]:
        at = self._place(self.next)
        if at is None or at[1] not in at[0].ended:
            self.map._until(self._decided, None, self.bar or _show.Progress())
            at = self._place(self.next)
        if at is None:
            return None
        self.next += 1
        return at

    def _decided(self) -> bool:
        at = self._place(self.next)
        return at[1] in at[0].ended if at is not None else self.map._over() or self.map._all_sent()

    def _place(self, number: int) -> Optional[Tuple[Seen, int]]:
        m = self.map
        while number < m._sent:
            # Parts are full but for the last and for those of large inputs: the guess is seldom far off.
            k = min(number // CHUNK, len(m._starts) - 1)
            while m._starts[k] > number:
                k -= 1
            while k + 1 < len(m._starts) and m._starts[k + 1] <= number:
                k += 1
            return m._parts[k], (m._parts[k].indexes or ())[number - m._starts[k]]
        return None

    def _any(self) -> Optional[Tuple[Seen, int]]:
        if not self.ready:
            self._gather()
        if not self.ready:
            self.map._until(lambda: self._gather() or self.map._over(), None, self.bar or _show.Progress())
        return self.ready.popleft() if self.ready else None

    def _gather(self) -> bool:
        for p in self.map._parts:
            given = self.given.setdefault(p.id, set())
            if len(given) < len(p.ended):
                new = [i for i in p.ended if i not in given]
                given.update(new)
                self.ready.extend((p, i) for i in new)
        return bool(self.ready)


class _AsyncResults(Generic[R]):
    """The same without blocking the loop."""

    def __init__(self, results: Iterator[R]) -> None:
        self.results = results

    def __aiter__(self) -> "_AsyncResults[R]":
        return self

    async def __anext__(self) -> R:
        import asyncio

        def take() -> Tuple[bool, Any]:
            try:
                return True, next(self.results)
            except StopIteration:
                return False, None

        more, value = await asyncio.get_running_loop().run_in_executor(None, take)
        if not more:
            raise StopAsyncIteration
        return value  # type: ignore[no-any-return]


MapResult = Map

# The labels of a map's jobs.
LABEL = "map"
MARK = "map-inputs"
CODE = "map-code"
LAST = "map-last"


def external_id(name: str, generation: int, part: int) -> str:
    """The client's own name of a job of a map: the same for the same part, so that it is sent once."""
    return f"map/{name}/{generation}/{part}"


def generation(status: Json) -> int:
    """How often a map was begun anew, of one of its jobs.

    >>> generation({"externalId": external_id("sweep", 2, 7)})
    2
    """
    words = str(status.get("externalId") or "").rsplit("/", 2)
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else 0


def size_of(iterables: Sequence[Iterable[Any]]) -> Optional[int]:
    """How many inputs there are, None where one does not say."""
    sizes = []
    for i in iterables:
        if not hasattr(i, "__len__"):
            return None
        sizes.append(len(i))  # type: ignore[arg-type]
    return min(sizes) if sizes else 0


def spread(function: Callable[..., Any], rows: Iterable[Sequence[Any]], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    return zip(itertools.repeat(function), rows, itertools.repeat(kwargs))


