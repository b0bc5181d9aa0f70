"""What runs on a machine: one call, whose result is a file.

The archive that the driver made is on ``sys.path`` and holds this package, the project's modules and the functions.
Arguments come with the job (``SHOAL_ITEM``) or from a file (``SHOALPY_CALLS``); the result goes to ``result.pkl`` in
the task's directory of the output ``results``. The streams are the function's own.
"""

from __future__ import annotations

import json
import linecache
import os
import pickle
import signal
import sys
import traceback
import types
import zipimport
from typing import Any, Callable, Dict

from . import _checkpoint, _pack
from .errors import ShipError, VersionError

MAIN = "__shoal_main__"  # the name under which a script's source is imported
RESULT = "result.pkl"
SAVED = "checkpoint.pkl"
EXIT_SAVED = 75  # EX_TEMPFAIL of sysexits.h: saved on a warning, to be tried again
MAX_TRACEBACK = 200_000  # characters

importing_main = False  # a script's top level runs: it must not submit anything
by_value = False  # the archive holds cloudpickle


class Archive:
    """What the driver packed: a zip file that is also on ``sys.path``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files = zipimport.zipimporter(path)
        self.manifest: Dict[str, Any] = json.loads(self.read("shoal-manifest.json"))

    def read(self, name: str) -> bytes:
        return self.files.get_data(os.path.join(self.path, name))

    def check(self) -> None:
        """Refuses to unpickle what another Python has pickled."""
        there = self.manifest["python"]
        if there != _pack.PYTHON:
            raise VersionError(
                f"the call was sent by Python {there}, and {sys.executable} of this machine is Python {_pack.PYTHON}",
                f'name another one with Pool(..., python="/path/to/python{there}")',
            )

    def load_main(self) -> None:
        """Imports the driver's script under another name, as multiprocessing does, and lets it be found as __main__."""
        global importing_main
        told = self.manifest.get("main")
        if not told:
            return
        module = types.ModuleType(MAIN)
        module.__file__ = told["file"]
        module.__package__ = told.get("package") or ""
        source = self.read(MAIN + ".py").decode("utf-8", "surrogateescape")
        linecache.cache[told["file"]] = (len(source), None, source.splitlines(True), told["file"])
        sys.modules[MAIN] = module
        importing_main = True
        try:
            exec(compile(self.read(MAIN + ".py"), told["file"], "exec"), module.__dict__)
        finally:
            importing_main = False
        sys.modules["__main__"] = module

    def load(self, blob: bytes) -> _checkpoint.Call:
        key, function, args, kwargs = pickle.loads(blob)
        if key:
            function = pickle.loads(_pack.unpack(self.read(f"functions/{key}.pkl"))[1])
        return _checkpoint.Call(function, *args, **kwargs)


def dumps(value: Any) -> bytes:
    """Pickles what goes back. What has no name here, such as a class of a notebook, goes by value, by the cloudpickle
    that the driver sent."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        if not by_value:
            raise
    import cloudpickle

    return bytes(cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL))


class Task:
    """One task: where its result goes, and which attempt it is."""

    def __init__(self, env: Dict[str, str]) -> None:
        self.index = int(env["SHOAL_ARRAY_INDEX"])
        self.position = int(env["SHOAL_TASK_INDEX"])
        self.attempt = int(env.get("SHOAL_ATTEMPT") or int(env.get("SHOAL_RESTART_COUNT") or 0) + 1)
        self.directory = os.path.join(env["SHOAL_OUTPUT_RESULTS"], str(self.index))
        self.calls = env.get("SHOALPY_CALLS", "")
        self.item = env.get("SHOAL_ITEM", "")

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def blob(self) -> bytes:
        """The call: what was saved by an earlier attempt, else what was sent."""
        try:
            with open(self.path(SAVED), "rb") as f:
                return _pack.unpack(f.read())[1]
        except FileNotFoundError:
            pass
        return _pack.read_one(self.calls, self.position) if self.calls else _pack.from_text(self.item)

    def save(self, call: _checkpoint.Call) -> None:
        body = dumps(("", call.function, call.args, call.kwargs))
        _pack.write_whole(self.path(SAVED), _pack.pack("call", body, attempt=self.attempt))

    def store(self, kind: str, body: bytes, **extra: Any) -> None:
        _pack.write_whole(self.path(RESULT), _pack.pack(kind, body, attempt=self.attempt, **extra))

    def store_value(self, value: Any) -> None:
        try:
            body = dumps(value)
        except Exception as e:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise ShipError(f"the result cannot be sent back: a {kind} cannot be pickled: {e}") from e
        self.store("value", body)
        try:
            os.unlink(self.path(SAVED))
        except OSError:
            pass

    def store_error(self, error: BaseException, text: str) -> None:
        said = {"type": f"{type(error).__module__}.{type(error).__qualname__}", "text": _text(error), "traceback": text[-MAX_TRACEBACK:]}
        self.store("error", _pickled(error), **said)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:10_000]
    except Exception:
        return "(its text cannot be made)"


def _pickled(error: BaseException) -> bytes:
    """The exception as a pickle that can be read again, empty if there is none."""
    if not isinstance(error, Exception):
        return b""  # SystemExit and the like would end whoever asks for the result
    try:
        body = dumps(error)
        again = pickle.loads(body)
    except Exception:
        return b""
    return body if type(again).__qualname__ == type(error).__qualname__ else b""


def _report(error: BaseException, skip: int) -> str:
    """A traceback without our own frames."""
    tb = error.__traceback__
    for _ in range(skip):
        tb = tb.tb_next if tb is not None and tb.tb_next is not None else tb
    return "".join(traceback.format_exception(type(error), error, tb))


def finish(value: Any) -> Any:
    """What a call comes to: a coroutine is run, and what a generator yields becomes a list."""
    if isinstance(value, types.CoroutineType):
        import asyncio  # it takes longer to load than most tasks take to start

        async def whole() -> Any:
            return await value

        return asyncio.run(whole())
    return list(value) if isinstance(value, types.GeneratorType) else value


def _watch(task: Task, call: _checkpoint.Call) -> None:
    """Has the call saved when the task is told to go."""
    found = _checkpoint.handler_of(call.function)
    if found is None:
        return
    handler: Callable[..., Any] = found

    def warned(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        try:
            answer = handler(*call.args, **call.kwargs)
            if answer is not None:
                if not isinstance(answer, _checkpoint.Call):
                    raise TypeError(f"checkpoint must return a shoal.Call or None, not {type(answer).__name__}")
                task.save(answer)
        except BaseException as e:
            text = _report(e, 1)
            sys.stderr.write(text)
            task.store_error(e, text)
            _leave(1)
        sys.stderr.write("shoal: told to go; what was done is saved for the next attempt\n")
        _leave(EXIT_SAVED)

    for s in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(s, warned)


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)


def run(archive: str, env: Dict[str, str]) -> int:
    """Makes the call and stores what comes of it. Returns the exit code."""
    task = Task(env)
    _checkpoint._saver, _checkpoint._attempt = task.save, task.attempt
    skip = 1
    try:
        call = _prepare(archive, task)
        _watch(task, call)
        skip = 2
        value = finish(call())
        skip = 1
        task.store_value(value)
    except BaseException as e:
        text = _report(e, skip)
        sys.stderr.write(text)
        task.store_error(e, text)
        return e.code if isinstance(e, SystemExit) and isinstance(e.code, int) and e.code > 0 else 1
    return 0


def _prepare(path: str, task: Task) -> _checkpoint.Call:
    global by_value
    archive = Archive(path)
    archive.check()
    by_value = bool(archive.manifest.get("cloudpickle"))
    try:
        archive.load_main()
        return archive.load(task.blob())
    except _pack.PackError as e:
        raise ShipError(f"the call did not arrive whole: {e}") from e
    except (ImportError, AttributeError) as e:
        raise ShipError(f"the call cannot be loaded on the machine: {e}") from e


def main() -> None:
    """Runs in the machine. The result is stored before the interpreter's own end, which may take its time."""
    sys.exit(run(os.path.abspath(sys.argv[0]), dict(os.environ)))
