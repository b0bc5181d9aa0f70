"""Calls that can be interrupted and go on where they were.

A task may be told to go: its machine is wanted by somebody else (SIGTERM, then a grace), or its time limit is near (a
signal a minute ahead). A callable that can save what it has done says so in one of two ways::

    class Train:                                    # an object
        def __init__(self): self.epoch = 0
        def __call__(self, epochs): ...
        def checkpoint(self, epochs):               # called with what the call was called with
            return shoal.Call(self, epochs)         # what the next attempt calls

    @shoal.checkpoint(lambda epochs: shoal.Call(train, epochs, start=state["epoch"]))
    def train(epochs, start=0): ...

The next attempt gets the returned call instead of the first one. After a preemption or the loss of a machine the next
attempt comes by itself; after the warning of a time limit the task ends with exit code 75 and counts as a failure, so
give ``retries``. :func:`save` stores a call at any time, for what gives no warning: a machine that dies. What is
returned or saved travels as arguments do.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Optional, Tuple, TypeVar

__all__ = ["Call", "checkpoint", "save", "attempt"]

F = TypeVar("F", bound=Callable[..., Any])


class Call:
    """A function with what it is to be called with.

    >>> c = Call(pow, 2, 5)
    >>> c(), c
    (32, Call(pow, 2, 5))
    """

    __slots__ = ("function", "args", "kwargs")

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if not callable(function):
            raise TypeError(f"a call needs something that can be called, not {type(function).__name__}")
        self.function = function
        self.args: Tuple[Any, ...] = args
        self.kwargs: Dict[str, Any] = kwargs

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def __reduce__(self) -> Tuple[Any, ...]:
        return _call, (self.function, self.args, self.kwargs)

    def __repr__(self) -> str:
        words = [getattr(self.function, "__name__", type(self.function).__name__)]
        words += [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"Call({', '.join(words)})"


def _call(function: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Call:
    return Call(function, *args, **kwargs)


def checkpoint(on_warning: Callable[..., Call]) -> Callable[[F], F]:
    """Marks a function as one that can be interrupted.

    ``on_warning`` is called in the main thread, between two bytecodes, with the arguments of the call; it returns the
    :class:`Call` that the next attempt makes, or ``None`` for the same one again.
    """

    def mark(function: F) -> F:
        function.checkpoint = on_warning  # type: ignore[attr-defined]
        return function

    return mark


_saver: Optional[Callable[[Call], None]] = None
_attempt = 1


def save(call: Call) -> None:
    """Stores the call that the next attempt of this task makes, should there be one.

    It takes as long as writing the pickle to the share. Outside a task, and in ``Pool("debug")``, it does nothing.
    """
    if not isinstance(call, Call):
        raise TypeError(f"save takes a shoal.Call, not {type(call).__name__}")
    if _saver is not None:
        _saver(call)


def attempt() -> int:
    """Which attempt at this task it is, from 1; 1 outside a task."""
    return _attempt


def handler_of(function: Any) -> Optional[Callable[..., Any]]:
    """What to call on a warning, ``None`` for a function that says nothing."""
    if isinstance(function, functools.partial):
        inner = handler_of(function.func)
        return functools.partial(inner, *function.args, **function.keywords) if inner else None
    found = getattr(function, "checkpoint", None)
    return found if callable(found) and not isinstance(function, type) else None
