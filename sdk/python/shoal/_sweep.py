"""Parameters to be tried: every combination, or so many at random.

What comes of it are dicts: inputs for :meth:`Pool.map`, and items for :meth:`Pool.run`, whose fields are
``PARAM_<NAME>`` and ``{name}`` in the command.
"""

from __future__ import annotations

import itertools
import math
import random as _random
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, Union, overload

__all__ = ["grid", "random", "choice", "uniform", "loguniform", "integers", "sweep", "Space"]

Draw = Callable[[_random.Random], Any]


class Space(Sequence[Dict[str, Any]]):
    """A sequence of dicts. Spaces can be added: ``grid(lr=[1, 2]) + grid(lr=[3], depth=[4])``."""

    def __init__(self, rows: Iterable[Dict[str, Any]]) -> None:
        self._rows: List[Dict[str, Any]] = [dict(r) for r in rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> Dict[str, Any]: ...

    @overload
    def __getitem__(self, i: slice) -> "Space": ...

    def __getitem__(self, i: Union[int, slice]) -> Any:
        return Space(self._rows[i]) if isinstance(i, slice) else dict(self._rows[i])

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        return (dict(r) for r in self._rows)

    def __add__(self, other: Iterable[Dict[str, Any]]) -> "Space":
        return Space([*self._rows, *other])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._rows == other._rows

    def __repr__(self) -> str:
        return f"<shoal sweep of {len(self)}: {', '.join(sorted({k for r in self._rows for k in r}))}>"


def grid(**parameters: Any) -> Space:
    """Every combination; the last parameter changes fastest. What is no list, tuple, range or set is one value.

    >>> list(grid(lr=[0.1, 0.01], depth=[2, 3]))[1:3]
    [{'lr': 0.1, 'depth': 3}, {'lr': 0.01, 'depth': 2}]
    >>> len(grid(lr=[0.1, 0.01], depth=range(5), model="svm"))
    10
    """
    values = [_several(v) for v in parameters.values()]
    return Space(dict(zip(parameters, row)) for row in itertools.product(*values))


def _several(value: Any) -> List[Any]:
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        return [value]
    return sorted(value) if isinstance(value, (set, frozenset)) else list(value)


def random(n: int, seed: int = 0, **parameters: Any) -> Space:
    """``n`` draws, the same for the same seed. A list is chosen from; see :func:`uniform`, :func:`loguniform`,
    :func:`integers`; anything else is itself.

    >>> draws = random(100, lr=loguniform(1e-4, 1e-1), depth=[2, 3], layers=integers(1, 4))
    >>> all(1e-4 <= d["lr"] <= 1e-1 and d["depth"] in (2, 3) and 1 <= d["layers"] <= 4 for d in draws)
    True
    >>> draws == random(100, lr=loguniform(1e-4, 1e-1), depth=[2, 3], layers=integers(1, 4))
    True
    """
    if n < 0:
        raise ValueError("a sweep cannot have fewer than no draws")
    # Each parameter has a source of its own, so that one more does not change the others.
    sources = {k: _random.Random(f"{seed}/{k}") for k in parameters}
    draws = {k: v if callable(v) else choice(_several(v)) for k, v in parameters.items()}
    return Space({k: draws[k](sources[k]) for k in parameters} for _ in range(n))


def choice(values: Sequence[Any]) -> Draw:
    """One of these, each as likely."""
    known = list(values)
    if not known:
        raise ValueError("there is nothing to choose from")
    return lambda r: r.choice(known)


def uniform(low: float, high: float) -> Draw:
    """A number between two."""
    return lambda r: r.uniform(low, high)


def loguniform(low: float, high: float) -> Draw:
    """A number between two positive ones, each order of magnitude as likely."""
    if not 0 < low <= high:
        raise ValueError(f"loguniform needs 0 < low <= high, not {low} and {high}")
    return lambda r: math.exp(r.uniform(math.log(low), math.log(high)))


def integers(low: int, high: int) -> Draw:
    """A whole number from one to another, both included."""
    return lambda r: r.randint(low, high)


def sweep(*spaces: Iterable[Dict[str, Any]]) -> Space:
    """Several spaces, one after the other.

    >>> list(sweep(grid(a=[1]), [{"a": 2, "b": 3}]))
    [{'a': 1}, {'a': 2, 'b': 3}]
    """
    return Space(itertools.chain(*spaces))
