"""Functions that the tests send: a module of a user's project."""

import os
import signal
import sys
import threading
import time
from typing import Any, Iterator, List

import shoal


class Odd(Exception):
    """An exception whose constructor takes what its pickle does not have."""

    def __init__(self, what: str, value: int) -> None:
        super().__init__(f"{what} {value}")
        self.what, self.value = what, value

    def __reduce__(self) -> Any:
        return Odd, (self.what, self.value)


class Stubborn(Exception):
    """One that cannot be rebuilt."""

    def __init__(self, a: int, *, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.lock = threading.Lock()


def double(x: Any) -> Any:
    print("doubling", x)
    return x * 2


def add(x: int, y: int = 100, z: int = 0) -> int:
    return x + y + z


def fussy(x: int) -> int:
    if x % 2:
        raise Odd("odd", x)
    return x


def stubborn(_: int) -> None:
    print("before", file=sys.stderr)
    raise Stubborn(1, b=2)


def leaves(code: int) -> None:
    sys.exit(code)


def dies(_: int) -> None:
    print("about to die", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def lock(_: int) -> Any:
    return threading.Lock()


def yields(n: int) -> Iterator[int]:
    yield from range(n)


async def later(x: int) -> int:
    return x + 1


def size(data: bytes) -> int:
    return len(data)


def fails_until(path: str, times: int) -> int:
    with open(path, "a") as f:
        f.write("x")
    tries = os.path.getsize(path)
    if tries <= times:
        raise Odd("try", tries)
    return tries


def sleeps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def imports_late() -> int:
    from tests import latecomer

    return latecomer.VALUE


class Counter:
    """Counts to a number, and is stopped on the way."""

    def __init__(self) -> None:
        self.done: List[int] = []

    def __call__(self, n: int) -> List[Any]:
        while len(self.done) < n:
            self.done.append(len(self.done))
            if len(self.done) == 3 and shoal.attempt() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return [self.done, shoal.attempt()]

    def checkpoint(self, n: int) -> shoal.Call:
        return shoal.Call(self, n)


def saves(start: int = 0) -> List[int]:
    """Saves as it goes, and is killed without a warning."""
    for i in range(start, 5):
        shoal.save(shoal.Call(saves, i))
        if i == 3 and shoal.attempt() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return [start, shoal.attempt()]


@shoal.checkpoint(lambda seconds, again=False: shoal.Call(naps, seconds, True))
def naps(seconds: float, again: bool = False) -> bool:
    if not again:
        time.sleep(seconds)
    return again


@shoal.remote(pool="local", cpus=1)
def shout(text: str) -> str:
    return text.upper()
