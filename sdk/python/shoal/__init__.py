"""Pools of machines for a team, from Python.

::

    import shoal

    with shoal.Pool("lab", cpus=2, time="1h") as p:
        p.run("python3 train.py --fold $SHOAL_ARRAY_INDEX", array=range(8)).wait()
        for accuracy in p.map(train, [0.1, 0.01, 0.001]):
            print(accuracy)

``Pool("local")`` and ``Pool("debug")`` take the same code without a server. docs/guides/python.md is the guide.

The names below are loaded when they are first used, so that a task starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

from ._version import VERSION as __version__

if TYPE_CHECKING:
    from ._job import File, Job, Status, as_completed, wait
    from ._map import Failure, Map, MapResult
    from ._checkpoint import Call, attempt, checkpoint, save
    from .errors import (
        CancelledError,
        ConflictError,
        DeniedError,
        ExhaustedError,
        InternalError,
        InvalidError,
        NotFoundError,
        RemoteError,
        RemoteTraceback,
        ResultError,
        ShipError,
        ShoalError,
        TaskError,
        UnauthenticatedError,
        UnavailableError,
        VersionError,
        WaitTimeout,
        original,
    )
    from ._pool import ImageWarning, Pool
    from ._remote import RemoteFunction, remote
    from ._sweep import Space, choice, grid, integers, loguniform, random, sweep, uniform

_WHERE = {
    "_job": ("File", "Job", "Status", "as_completed", "wait"),
    "_map": ("Failure", "Map", "MapResult"),
    "_checkpoint": ("Call", "attempt", "checkpoint", "save"),
    "errors": ("CancelledError", "ConflictError", "DeniedError", "ExhaustedError", "InternalError", "InvalidError", "NotFoundError", "RemoteError",
               "RemoteTraceback", "ResultError", "ShipError", "ShoalError", "TaskError", "UnauthenticatedError", "UnavailableError", "VersionError",
               "WaitTimeout", "original"),
    "_pool": ("ImageWarning", "Pool"),
    "_remote": ("RemoteFunction", "remote"),
    "_sweep": ("Space", "choice", "grid", "integers", "loguniform", "random", "sweep", "uniform"),
}  # fmt: skip
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE)]


def __getattr__(name: str) -> Any:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
