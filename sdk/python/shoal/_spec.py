"""Words of people into fields of a job."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Union

from .errors import InvalidError

Seconds = Union[int, float, str, datetime.timedelta]
Amount = Union[int, str]

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: Seconds) -> float:
    """A length of time in seconds: a number of them, a timedelta, or "90s", "1h30m", "2d", "HH:MM:SS".

    >>> seconds("1h30m"), seconds(2.5), seconds("01:00:05")
    (5400.0, 2.5, 3605.0)
    """
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value <= 1e9:
            raise InvalidError(f"cannot use {value!r} seconds as a duration")
        return float(value)
    text = str(value).strip()
    if re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", text):
        days, _, clock = text.rpartition("-")
        h, m, s = (int(n) for n in clock.split(":"))
        return int(days or 0) * 86400.0 + h * 3600 + m * 60 + s
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise InvalidError(f"cannot read {value!r} as a duration", "write a number of seconds, or 90s, 1h30m, 2d")
    return float(sum(float(n) * _UNITS[u] for n, u in parts))


def duration(value: Optional[Seconds]) -> Optional[float]:
    return None if value is None else seconds(value)


def array(value: Union[str, range, Sequence[int], int]) -> str:
    """Indexes of tasks as the server reads them; a number n means 0 to n-1.

    >>> array(range(8)), array(range(0, 10, 3)), array([1, 4, 7, 8, 9]), array(3), array("1-100")
    ('0-7', '0-9:3', '1,4,7-9', '0-2', '1-100')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        value = range(value)
    if len(value) == 0:
        raise InvalidError("an array needs a task: there are no indexes")
    if isinstance(value, range):
        r = value if value.step > 0 else value[::-1]
        if r[0] < 0:
            raise InvalidError(f"cannot use {r[0]} as an index: they begin at 0")
        if len(r) == 1:
            return str(r[0])
        return f"{r[0]}-{r[-1]}" + (f":{r.step}" if r.step > 1 else "")
    numbers = sorted(set(value))
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise InvalidError("indexes are numbers from 0 on")
    parts: List[str] = []
    start = last = numbers[0]
    for n in [*numbers[1:], None]:
        if n is not None and n == last + 1:
            last = n
            continue
        parts.append(str(start) if start == last else f"{start}-{last}")
        if n is not None:
            start = last = n
    return ",".join(parts)


def indexes(text: str) -> Sequence[int]:
    """The indexes that such a text means, in order.

    >>> indexes("1,4,7-9"), list(indexes("0-9:3")), list(indexes("")), len(indexes("0-9999999"))
    ([1, 4, 7, 8, 9], [0, 3, 6, 9], [0], 10000000)
    """
    if not text:
        return range(1)
    found: List[int] = []
    for part in text.split(","):
        m = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::(\d+))?)?\s*", part)
        if not m or m.group(3) == "0":
            raise InvalidError(f"cannot read {text!r} as indexes of tasks", "write 0-7, 0-9:3 or 1,4,7-9")
        first, last = int(m.group(1)), int(m.group(2) or m.group(1))
        part_ = range(first, last + 1, int(m.group(3) or 1))
        if part == text:
            return part_
        found += part_
    return sorted(set(found))


def resources(cpus: Optional[float], memory: Optional[Amount], gpus: Optional[int]) -> Dict[str, Any]:
    """What each task asks for; what is None is left to the server's defaults."""
    given = {"cpus": cpus, "memory": memory, "gpus": gpus}
    return {k: v for k, v in given.items() if v is not None}


def environment(env: Optional[Mapping[str, Any]]) -> Dict[str, str]:
    return {str(k): str(v) for k, v in (env or {}).items()}


def items(values: Iterable[Any]) -> List[Any]:
    """Items of an array: whatever JSON can say; a set or a number of numpy is no such thing."""
    found = list(values)
    for i, v in enumerate(found):
        try:
            json.dumps(v, allow_nan=False)
        except (TypeError, ValueError) as e:
            raise InvalidError(f"item {i} cannot be sent: {e}", "items are strings, numbers, lists and dicts; functions take anything: p.map(f, xs)") from e
    return found
