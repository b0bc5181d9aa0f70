"""Functions that know where they run: ``@shoal.remote(pool="lab", gpus=1)``."""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any, Callable, Dict, Generic, Iterable, Optional, TypeVar, Union, overload

from ._job import Job
from ._map import Map
from ._pool import Pool

T = TypeVar("T")

_pools: Dict[str, Pool] = {}  # a pool for each name: connections and local workers are shared
_lock = threading.Lock()


def pool_of(pool: Union[str, Pool]) -> Pool:
    """The pool of a name, made when it is first needed."""
    if isinstance(pool, Pool):
        return pool
    with _lock:
        if pool not in _pools:
            _pools[pool] = Pool(pool)
        return _pools[pool]


class RemoteFunction(Generic[T]):
    """A function with a pool and what its tasks ask for. Calling it is calling the function, here."""

    __qualname__: str

    def __init__(self, function: Callable[..., T], pool: Union[str, Pool], options: Dict[str, Any]) -> None:
        self.__shoal_function__ = function
        self._pool = pool
        self._options = options
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        return self.__shoal_function__(*args, **kwargs)

    def local(self, *args: Any, **kwargs: Any) -> T:
        """Calls the function here."""
        return self.__shoal_function__(*args, **kwargs)

    def _there(self) -> Pool:
        return pool_of(self._pool).options(**self._options)

    def remote(self, *args: Any, **kwargs: Any) -> Job:
        """Sends a call; see :meth:`Pool.submit`."""
        return self._there().submit(self.__shoal_function__, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **how: Any) -> "Map[T]":
        """Calls it for each input, there; see :meth:`Pool.map`."""
        return self._there().map(self.__shoal_function__, *iterables, **how)

    def spawn_map(self, *iterables: Iterable[Any], **how: Any) -> "Map[T]":
        """See :meth:`Pool.spawn_map`."""
        return self._there().spawn_map(self.__shoal_function__, *iterables, **how)

    def for_each(self, *iterables: Iterable[Any], **how: Any) -> None:
        """See :meth:`Pool.for_each`."""
        self._there().for_each(self.__shoal_function__, *iterables, **how)

    def options(self, pool: Union[None, str, Pool] = None, **options: Any) -> "RemoteFunction[T]":
        """The same function with another pool or other needs: ``f.options(cpus=4).remote(3)``."""
        return RemoteFunction(self.__shoal_function__, self._pool if pool is None else pool, {**self._options, **options})

    def __reduce__(self) -> Any:
        # By name where it has one, as functions go; else with the function by value, which cloudpickle can.
        module = sys.modules.get(self.__module__)
        found: Any = module
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is self and (self.__module__ != "__main__" or "cloudpickle" not in sys.modules):
            return self.__qualname__
        pool = self._pool if isinstance(self._pool, str) else self._pool.name
        return _again, (self.__shoal_function__, pool, self._options)

    def __repr__(self) -> str:
        return f"<shoal.remote {self.__qualname__}>"


def _again(function: Callable[..., T], pool: str, options: Dict[str, Any]) -> RemoteFunction[T]:
    return RemoteFunction(function, pool, options)


@overload
def remote(function: Callable[..., T]) -> RemoteFunction[T]: ...


@overload
def remote(function: None = None, *, pool: Union[str, Pool] = "", **options: Any) -> Callable[[Callable[..., T]], RemoteFunction[T]]: ...


def remote(function: Optional[Callable[..., Any]] = None, *, pool: Union[str, Pool] = "", **options: Any) -> Any:
    """Gives a function a pool and needs::

        @shoal.remote(pool="lab", gpus=1, time="2h")
        def train(lr): ...

        train(0.1)                        # here
        train.remote(0.1).result()        # on a machine
        train.map([0.1, 0.01])            # on several
        train.options(gpus=2).remote(0.1)

    ``options`` are those of :meth:`Pool.options`.
    """
    if function is not None:
        return RemoteFunction(function, pool, options)

    def decorate(f: Callable[..., T]) -> RemoteFunction[T]:
        return RemoteFunction(f, pool, options)

    return decorate
