"""Packs functions for machines that have never seen them.

What travels is an archive, named by the checksum of its content: this package, the modules of the project, the
functions as pickles, and what was pickled by whom. The rules, which docs/guides/python.md explains:

* Modules below the project's root that were imported so far go along, and those of the project that they import.
* With cloudpickle, functions and classes of ``__main__`` (a script, a notebook, a prompt) go by value, and
  cloudpickle itself goes along. Without, they are found again by importing the script's file under another name.
* Whatever is installed (standard library, site-packages) is expected on the machine's image and does not travel.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import json
import marshal
import os
import pickle
import sys
import sysconfig
import types
import zipfile
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from . import _pack
from ._pack import digest
from ._version import VERSION
from ._worker import MAIN
from .errors import ShipError

MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", ".git", ".hg")
EVERY_TASK = tuple(f"shoal/{m}.py" for m in ("__init__", "_checkpoint", "_pack", "_version", "_worker", "errors"))  # loads these of ours
KEPT = 4  # packed archives
MAX_PROJECT = 16 << 20  # bytes of source; more is no source

try:
    import cloudpickle as _cloudpickle
except ImportError:
    _cloudpickle = None


class Archive(NamedTuple):
    """A packed archive: its name is the SHA-256 of its bytes, in hex."""

    name: str
    data: bytes
    imports: Tuple[str, ...]  # top-level modules that are expected on the image


def title(f: Any) -> str:
    """How a function is called in sentences.

    >>> title(len), title(lambda: 0)
    ('len', 'the lambda on line 1 of <doctest shoal._ship.title[0]>')
    """
    while isinstance(f, functools.partial):
        f = f.func
    name = getattr(f, "__qualname__", None) or f"an object of {type(f).__qualname__}"
    code = getattr(f, "__code__", None)
    if code is not None and name.endswith("<lambda>"):
        return f"the lambda on line {code.co_firstlineno} of {code.co_filename}"
    module = getattr(f, "__module__", None)
    return f"{module}.{name}" if module and module not in ("builtins", "__main__") else str(name)


class Shipper:
    """Packs calls. ``project`` is the root of the project, found where it is not given; ``cloudpickle`` False does
    without it although it is there."""

    def __init__(self, project: Optional[str] = None, cloudpickle: bool = True) -> None:
        self.root = os.path.realpath(project) if project else find_root()
        self.cloudpickle = _cloudpickle if cloudpickle else None
        self._packed: Dict[str, Archive] = {}
        self._read: Dict[Tuple[str, str, int, int], Set[str]] = {}
        if not os.path.isdir(self.root):
            raise ShipError(f"there is no project at {self.root}: it is no directory")

    # ---- pickling

    def dumps(self, value: Any, what: str) -> bytes:
        """Pickles something; ``what`` names it where that fails."""
        try:
            if self.cloudpickle is not None:
                return bytes(self.cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL))
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as e:
            raise ShipError(f"cannot send {what}: {_why(e)}", self._hint(e)) from e

    def _hint(self, e: BaseException) -> str:
        if self.cloudpickle is None and any(w in str(e) for w in ("local object", "<lambda>", "<locals>", "not found as")):
            return "define it at the top level of a module of your project, or install cloudpickle (apt install python3-cloudpickle, or pip)"
        return ""

    def function(self, f: Callable[..., Any]) -> bytes:
        """Pickles a function after it was made sure that the machine will find what it needs."""
        if not callable(f):
            raise ShipError(f"cannot send {f!r}: it is no function, and an object of {type(f).__qualname__} cannot be called")
        self._reachable(f)
        return self.dumps(f if self.cloudpickle is not None else _decorated(f), title(f))

    def _reachable(self, f: Any) -> None:
        while isinstance(f, functools.partial):
            f = f.func
        name = getattr(f, "__module__", None) or type(f).__module__
        module = sys.modules.get(name)
        if module is None or name == "__main__":
            return  # by value, or with the script; what cannot be pickled says so itself
        path = getattr(module, "__file__", None)
        if path is None or installed(path) or _is_ours(name) or self._below(path):
            return
        raise ShipError(
            f"cannot send {title(f)}: its module {path} is neither below the project {self.root} nor installed",
            'say where your project is, with Pool(..., project="DIR")',
        )

    def _below(self, path: str) -> bool:
        path = os.path.realpath(path)
        return path.startswith(self.root.rstrip(os.sep) + os.sep) and not installed(path)

    # ---- packing

    def archive(self, functions: Mapping[str, bytes], script: bool) -> Archive:
        """Packs functions and what they need, with ``script`` also the one that runs. What has not changed since the
        last time is not packed again."""
        files = _own_files()
        if self.cloudpickle is not None:
            files.update(_package_files(self.cloudpickle))
        project, imports = self._project()
        files.update({n: p for n, p in project.items() if n not in files})
        stamps = [(n, p, os.stat(p).st_mtime_ns, os.stat(p).st_size) for n, p in sorted(files.items())]
        size = sum(s[3] for s in stamps)
        if size > MAX_PROJECT:
            raise ShipError(f"cannot send the project {self.root}: its modules have {size:,} bytes", 'name a smaller one with Pool(..., project="DIR")')
        main = self._script() if script else None
        key = digest(repr((stamps, main, sorted((k, digest(v)) for k, v in functions.items()))).encode())
        if key not in self._packed:
            while len(self._packed) >= KEPT:
                self._packed.pop(next(iter(self._packed)))
            self._packed[key] = self._pack(files, functions, main, imports)
        return self._packed[key]

    def _pack(self, files: Mapping[str, str], functions: Mapping[str, bytes], main: Optional[Tuple[bytes, Dict[str, str]]], imports: Iterable[str]) -> Archive:
        entries: Dict[str, bytes] = {f"functions/{k}.pkl": _pack.pack("function", data) for k, data in functions.items()}
        manifest: Dict[str, Any] = {"python": _pack.PYTHON, "sdk": VERSION, "cloudpickle": self.cloudpickle is not None}
        if main is not None:
            entries[MAIN + ".py"], manifest["main"] = main
        for name, path in files.items():
            with open(path, "rb") as f:
                entries[name] = f.read()
            if not name.startswith("shoal/") or name in EVERY_TASK:
                entries[name + "c"] = _compiled(entries[name], path)
        entries["__main__.py"] = b"from shoal._worker import main\nmain()\n"
        entries["shoal-manifest.json"] = json.dumps(manifest, sort_keys=True).encode()
        data = _zip({n: d for n, d in entries.items() if d or not n.endswith(".pyc")})
        return Archive(digest(data), data, tuple(sorted(imports)))

    def _script(self) -> Tuple[bytes, Dict[str, str]]:
        """The source of the running script, to be imported under another name."""
        main = sys.modules["__main__"]
        path = getattr(main, "__file__", None)
        if path is None or not os.path.isfile(path) or not path.endswith(".py") or installed(path):
            raise ShipError(
                "cannot send what is defined in __main__: it has no file (a notebook or a prompt), and cloudpickle is not installed",
                "put it into a module beside the notebook and import it, or install cloudpickle (apt install python3-cloudpickle, or pip)",
            )
        with open(path, "rb") as f:
            source = f.read()
        spec = getattr(main, "__spec__", None)
        return source, {"file": os.path.abspath(path), "package": (spec.parent or "") if spec is not None else ""}

    def _project(self) -> Tuple[Dict[str, str], Set[str]]:
        """The project's modules that are needed, by their names in the archive, and what else they import."""
        found: Dict[str, str] = {}
        outside: Set[str] = set()
        todo: List[Tuple[str, str]] = []
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name != "__main__" and isinstance(module, types.ModuleType) and isinstance(path, str) and path.endswith(".py") and self._below(path):
                if not _is_ours(name):
                    todo.append((name, path))
        main = getattr(sys.modules["__main__"], "__file__", None)
        if isinstance(main, str) and main.endswith(".py") and os.path.isfile(main) and self._below(main):
            todo += self._imported(main, "", outside)
        while todo:
            name, path = todo.pop()
            entry = name.replace(".", "/") + ("/__init__.py" if os.path.basename(path) == "__init__.py" else ".py")
            if entry in found:
                continue
            found[entry] = path
            todo += self._imported(path, name if path.endswith("__init__.py") else name.rpartition(".")[0], outside)
            for parent in _parents(name):
                inits = [p for p in self._files(parent) if p.endswith("__init__.py")]
                todo += [(parent, p) for p in inits[:1]]
        return found, outside

    def _imported(self, path: str, package: str, outside: Set[str]) -> List[Tuple[str, str]]:
        """The project's modules that a file imports, anywhere in it, also those not imported yet."""
        found: List[Tuple[str, str]] = []
        for name in self._names(path, package):
            if _is_ours(name):
                continue  # it travels anyway
            files = self._files(name)
            found += [(name, p) for p in files[:1]]
            if not files and "." not in name:
                outside.add(name)
        return found

    def _names(self, path: str, package: str) -> Set[str]:
        """What a file imports, read again only when it has changed."""
        stat = os.stat(path)
        key = (path, package, stat.st_mtime_ns, stat.st_size)
        if key not in self._read:
            self._read[key] = _imports(path, package)
        return self._read[key]

    def _files(self, name: str) -> List[str]:
        """Where the project has a module of a name."""
        found = []
        for entry in sys.path:
            directory = os.path.realpath(entry or os.getcwd())
            if directory != self.root and not self._below(directory):
                continue
            base = os.path.join(directory, *name.split("."))
            found += [p for p in (os.path.join(base, "__init__.py"), base + ".py") if os.path.isfile(p) and self._below(p)]
        return found


def _decorated(f: Any) -> Any:
    """What a function's name means in its module, where that is the function with ``shoal.remote`` around it: it can
    be found by name, and the function itself cannot."""
    found: Any = sys.modules.get(getattr(f, "__module__", None) or "")
    for part in str(getattr(f, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found if getattr(found, "__shoal_function__", None) is f else f


class Parcel:
    """Calls that go the same way, one part after the other, with the code as it was when the first part went."""

    def __init__(self, shipper: Shipper) -> None:
        self.shipper = shipper
        self._keys: Dict[int, str] = {}
        self._kept: List[Any] = []  # so that no other function gets an identity that is known
        self._functions: Dict[str, bytes] = {}
        self._script = False
        self._archive: Optional[Archive] = None

    def blobs(self, calls: Iterable[Tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]]) -> List[bytes]:
        """Pickles calls: (function, args, kwargs) of each. Raises :class:`ShipError`."""
        found = []
        for f, args, kwargs in calls:
            if id(f) not in self._keys:
                self._add(f)
            blob = self.shipper.dumps((self._keys[id(f)], None, tuple(args), dict(kwargs)), f"the arguments of {title(f)}")
            self._mentions(blob)
            found.append(blob)
        return found

    def _add(self, f: Callable[..., Any]) -> None:
        data = self.shipper.function(f)
        self._mentions(data)
        # A number, so that the pickles of arguments do not change with the code.
        self._keys[id(f)] = key = str(len(self._functions) + 1)
        self._functions[key], self._archive = data, None
        self._kept.append(f)

    def _mentions(self, data: bytes) -> None:
        if self.shipper.cloudpickle is None and not self._script and b"__main__" in data:
            self._script, self._archive = True, None

    def archive(self) -> Archive:
        """What the calls pickled so far need."""
        if self._archive is None:
            self._archive = self.shipper.archive(self._functions, self._script)
        return self._archive

    def mark(self) -> str:
        """Tells this code from other code. Pickles do not: those of a notebook's cells differ after each restart."""
        parts = [fingerprint(f) for f in self._kept]
        for name, path in sorted(self.shipper._project()[0].items()):
            with open(path, "rb") as f:
                parts.append(f"{name} {digest(f.read())}")
        return digest("\n".join(parts).encode())[:16]


def fingerprint(f: Any) -> str:
    """What a function does, as text that is the same in the next process of the same Python.

    >>> def f(x): return x + 1
    >>> def g(x): return x + 2
    >>> fingerprint(f) == fingerprint(f), fingerprint(f) == fingerprint(g)
    (True, False)
    """
    if isinstance(f, functools.partial):
        return f"{fingerprint(f.func)} {len(f.args)} {sorted(f.keywords)}"
    code = getattr(f, "__code__", None) or getattr(getattr(type(f), "__call__", None), "__code__", None)
    return title(f) + " " + (_of_code(code) if code is not None else "")


def _of_code(code: types.CodeType) -> str:
    consts = [_of_code(c) if isinstance(c, types.CodeType) else "" if isinstance(c, frozenset) else repr(c) for c in code.co_consts]
    return digest(repr((code.co_code, consts, code.co_names, code.co_varnames)).encode())


def mark_of(args: Sequence[Any], kwargs: Mapping[str, Any], blob: bytes) -> str:
    """Tells these arguments from others: by a pickle in which classes are but names, where there can be one."""
    try:
        return digest(pickle.dumps((tuple(args), dict(kwargs)), pickle.HIGHEST_PROTOCOL))
    except Exception:
        return digest(blob)


def _compiled(source: bytes, path: str) -> bytes:
    """A module as a .pyc that is taken as it is (PEP 552, unchecked): machines have the same Python, and the traceback
    names the file that it came from. Empty for what does not compile; it says so where it is imported."""
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError):
        return b""
    return bytes(importlib.util.MAGIC_NUMBER) + (1).to_bytes(4, "little") + bytes(importlib.util.source_hash(source)) + marshal.dumps(code)


def _why(e: BaseException) -> str:
    text = str(e) or type(e).__name__
    return text[0].lower() + text[1:] if text[:5] in ("Can't", "Canno") else text


def _parents(name: str) -> List[str]:
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _imports(path: str, package: str) -> Set[str]:
    """The names of modules that a file's import statements could mean.

    ``from a import b`` may mean the module ``a.b``; whoever asks looks whether there is one.
    """
    try:
        with open(path, "rb") as f:
            tree = ast.parse(f.read(), path)
    except (SyntaxError, ValueError, OSError, RecursionError):
        return set()
    names: Set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")
                up = up[: len(up) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            if base:
                names.add(base)
                names.update(f"{base}.{a.name}" for a in node.names if a.name != "*")
    return names | {p for n in names for p in _parents(n)}


def find_root() -> str:
    """The project: the nearest directory above the script (else above the working directory) that has a
    pyproject.toml, setup.py, setup.cfg or a repository; without one, the script's directory itself."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    start = os.getcwd()
    if isinstance(path, str) and os.path.isfile(path) and not installed(path):
        start = os.path.dirname(os.path.abspath(path))
    start = os.path.realpath(start)
    directory, home = start, os.path.realpath(os.path.expanduser("~"))
    while directory != os.path.dirname(directory) and directory != home:
        if any(os.path.exists(os.path.join(directory, m)) for m in MARKERS):
            return directory
        directory = os.path.dirname(directory)
    return start


def _installed_places() -> Tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {os.path.realpath(p) for p in (sysconfig.get_path(n) for n in names) if p}
    return tuple(p.rstrip(os.sep) + os.sep for p in found)


_PLACES = _installed_places()


def installed(path: str) -> bool:
    """Whether a file belongs to what is installed, which does not travel."""
    path = os.path.realpath(path)
    return path.startswith(_PLACES) or any(d in path.split(os.sep) for d in ("site-packages", "dist-packages"))


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "shoal"


def _package_files(module: Any) -> Dict[str, str]:
    """The source files of a package, by their names in an archive."""
    path, name = os.path.realpath(module.__file__), module.__name__
    if os.path.basename(path) != "__init__.py":
        return {name + ".py": path}
    top = os.path.dirname(path)
    return {f"{name}/{f}": os.path.join(top, f) for f in sorted(os.listdir(top)) if f.endswith(".py")}


def _own_files() -> Dict[str, str]:
    return _package_files(sys.modules[__package__])


def _zip(entries: Mapping[str, bytes]) -> bytes:
    """A zip file that is the same for the same content. Directories are entries, too: packages without an __init__.py
    are found by them."""
    directories = {"/".join(n.split("/")[:i]) + "/" for n in entries for i in range(1, n.count("/") + 1)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in sorted({*entries, *directories}):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            data = entries.get(name, b"")
            large = len(data) > 1 << 20 and name.endswith(".pkl")  # arrays, mostly: time would be all that is lost
            info.compress_type = zipfile.ZIP_STORED if large or not data else zipfile.ZIP_DEFLATED
            z.writestr(info, data)
    return out.getvalue()
