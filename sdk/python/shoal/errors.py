"""What can go wrong, as types.

A server's problem document (RFC 9457) becomes the exception of its kind; ``hint`` says what to do next and
``mistakes`` lists all that is wrong with what was sent. What a task raised comes back as the type it had, with the
remote traceback as its cause; only where that cannot be rebuilt here it is a :class:`RemoteError`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type

__all__ = [
    "ShoalError",
    "InvalidError",
    "NotFoundError",
    "UnauthenticatedError",
    "DeniedError",
    "ConflictError",
    "ExhaustedError",
    "UnavailableError",
    "CancelledError",
    "InternalError",
    "ShipError",
    "VersionError",
    "ResultError",
    "TaskError",
    "RemoteError",
    "RemoteTraceback",
    "WaitTimeout",
    "original",
]


class ShoalError(Exception):
    """The base of all errors of this package.

    ``kind`` is the server's word for the sort of mistake, ``hint`` a sentence that says what to do next (or empty).
    """

    kind = "internal"

    def __init__(self, message: str, hint: str = "", mistakes: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.mistakes: List[Mapping[str, Any]] = list(mistakes)

    def __str__(self) -> str:
        lines = [self.message]
        for m in self.mistakes:
            text = ": ".join(str(m[k]) for k in ("path", "msg") if m.get(k))
            if text and text not in self.message:
                lines.append("  " + text + (f" ({m['hint']})" if m.get("hint") else ""))
        if self.hint:
            lines.append("hint: " + self.hint)
        return "\n".join(lines)

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: Type[BaseException], args: Tuple[Any, ...], state: Dict[str, Any]) -> BaseException:
    """Makes an exception again, whatever its constructor takes."""
    e = cls.__new__(cls, *args)
    e.args = args
    e.__dict__.update(state)
    return e


class InvalidError(ShoalError, ValueError):
    """What was asked for is wrong in itself."""

    kind = "invalid"


class NotFoundError(ShoalError, LookupError):
    """There is no such job, pool or map, or it is not yours to see."""

    kind = "notFound"


class UnauthenticatedError(ShoalError):
    """The server does not know who asks: no login, or one that has expired."""

    kind = "unauthenticated"


class DeniedError(ShoalError):
    """The server knows who asks, and she may not."""

    kind = "denied"


class ConflictError(ShoalError):
    """Something is in another state than assumed, such as a name that is taken."""

    kind = "conflict"


class ExhaustedError(ShoalError):
    """There is no capacity, or a quota is used up."""

    kind = "exhausted"


class UnavailableError(ShoalError):
    """The server does not answer. What was asked for may have happened."""

    kind = "unavailable"


class CancelledError(ShoalError):
    """A request was given up before it was answered."""

    kind = "cancelled"


class InternalError(ShoalError):
    """A mistake of the server's own; its log says more."""


class ShipError(InvalidError):
    """An object cannot be sent to a machine. The message names the object and says why."""


class VersionError(ShoalError):
    """The Python on the machines does not suit the one here. Nothing was sent."""

    kind = "conflict"


class ResultError(ShoalError):
    """A result is there and cannot be read: damaged, or of a class that cannot be imported here."""


class WaitTimeout(ShoalError, TimeoutError):
    """A wait took longer than its ``timeout``. The job goes on."""

    kind = "cancelled"


class TaskError(ShoalError):
    """A task ended without a result: killed, out of memory or time, cancelled, or with an exit code other than 0.

    ``state`` is the task's state (``failed``, ``timedout``, ``cancelled``), ``cause`` why its last attempt ended
    (``exit``, ``signal``, ``oom``, ``timeLimit``, ``cancelled``, ``preempted``, ``machineLost``, ``setupFailed``,
    ``quota``), ``exit_code`` as of ``shoal job wait`` (128+n by signal n), ``log`` the end of its stderr.
    """

    kind = "failed"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        job: str = "",
        index: int = 0,
        state: str = "failed",
        cause: str = "",
        exit_code: int = 1,
        log: str = "",
    ) -> None:
        super().__init__(message, hint)
        self.job = job
        self.index = index
        self.state = state
        self.cause = cause
        self.exit_code = exit_code
        self.log = log

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n--- the end of its stderr ---\n{self.log.rstrip()}" if self.log.strip() else text


class RemoteError(TaskError):
    """A task raised what cannot be rebuilt here.

    ``type_name`` is the exception's type with its module, ``text`` its message, ``traceback`` where it was raised.
    """

    def __init__(self, message: str, hint: str = "", *, type_name: str = "", text: str = "", traceback: str = "", **task: Any) -> None:
        super().__init__(message, hint, **task)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        # Its stderr ends with the same traceback.
        return f"{self.message}\n{self.traceback.rstrip()}" if self.traceback else super().__str__()


class RemoteTraceback(Exception):
    """The cause of an exception that was raised on a machine: its text is the traceback from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text.rstrip()


_BY_KIND: Dict[str, Type[ShoalError]] = {
    c.kind: c
    for c in (
        InvalidError,
        NotFoundError,
        UnauthenticatedError,
        DeniedError,
        ConflictError,
        ExhaustedError,
        UnavailableError,
        CancelledError,
        InternalError,
    )
}

_BY_STATUS = {400: "invalid", 401: "unauthenticated", 403: "denied", 404: "notFound", 409: "conflict", 429: "exhausted",
              499: "cancelled", 502: "unavailable", 503: "unavailable", 504: "unavailable"}  # fmt: skip


def from_problem(problem: Mapping[str, Any]) -> ShoalError:
    """Makes the exception of a problem document.

    >>> e = from_problem({"kind": "notFound", "detail": "there is no job 7", "hint": "`shoal job list` shows yours"})
    >>> type(e).__name__, e.hint
    ('NotFoundError', '`shoal job list` shows yours')
    """
    cls = _BY_KIND.get(str(problem.get("kind")), InternalError)
    mistakes = problem.get("mistakes")
    return cls(
        str(problem.get("detail") or problem.get("title") or "the server refused without a reason"),
        str(problem.get("hint") or ""),
        [m for m in mistakes if isinstance(m, dict)] if isinstance(mistakes, list) else (),
    )


def from_status(status: int, where: str, phrase: str = "") -> ShoalError:
    """Makes the exception of an answer that is not Shoal's own: a proxy's, or another program's."""
    kind = _BY_STATUS.get(status, "invalid" if 300 <= status < 500 else "internal")
    hint = "is it a Shoal server?" if 300 <= status < 500 else ""
    return _BY_KIND[kind](f"the server at {where} answered {status} {phrase}".rstrip(), hint)


def original(error: BaseException) -> Optional[str]:
    """The remote traceback that an exception carries, ``None`` for one that was raised here.

    >>> e = ValueError("no such fold")
    >>> e.__cause__ = RemoteTraceback("Traceback (most recent call last): …")
    >>> original(e)
    'Traceback (most recent call last): …'
    """
    if isinstance(error, RemoteError):
        return error.traceback or None
    return error.__cause__.text if isinstance(error.__cause__, RemoteTraceback) else None
