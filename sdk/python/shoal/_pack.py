"""The form in which pickles travel: a line that says what it is, a line of JSON, the pickle.

::

    shoal-pickle 1
    {"kind":"value","python":"3.11","sdk":"0.2.0","sha256":"…","size":123}
    <123 bytes>

The reader checks all of it before anything is unpickled: a file that is cut short, has a flipped bit or was made for
another version is refused with a sentence. Nothing here unpickles, and the server never does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import sys
from typing import Any, Dict, List, Sequence, Tuple

from ._version import VERSION

MAGIC = b"shoal-pickle 1\n"
MAX_HEADER = 1 << 20  # a header is read whole
PYTHON = "%d.%d" % sys.version_info[:2]


class PackError(ValueError):
    """What was read is not a whole pickle of ours."""


def pack(kind: str, body: bytes, **extra: Any) -> bytes:
    """Puts a header before a pickle.

    >>> header, body = unpack(pack("value", b"abc", attempt=2))
    >>> header["kind"], header["attempt"], body
    ('value', 2, b'abc')
    """
    header = dict(extra, kind=kind, sdk=VERSION, python=PYTHON, size=len(body), sha256=digest(body))
    line = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > MAX_HEADER:
        raise PackError(f"a header of {len(line)} bytes is longer than {MAX_HEADER}")
    return MAGIC + line + body


def _header(line: bytes) -> Dict[str, Any]:
    if not line.endswith(b"\n"):
        raise PackError("its header is cut short")
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise PackError("its header is not JSON") from e
    if not isinstance(header, dict):
        raise PackError("its header is not an object")
    for name, type_ in (("kind", str), ("sdk", str), ("python", str), ("sha256", str), ("size", int)):
        if not isinstance(header.get(name), type_) or isinstance(header.get(name), bool):
            raise PackError(f"its header lacks {name}")
    return header


def unpack(data: bytes) -> Tuple[Dict[str, Any], bytes]:
    """Takes header and pickle apart. Raises :class:`PackError` unless all of it is there and unchanged."""
    if not data.startswith(MAGIC):
        raise PackError("it does not begin as a pickle of Shoal's does")
    end = data.find(b"\n", len(MAGIC), len(MAGIC) + MAX_HEADER)
    if end < 0:
        raise PackError("its header is cut short")
    header = _header(data[len(MAGIC) : end + 1])
    body = data[end + 1 :]
    if len(body) != header["size"]:
        raise PackError(f"it has {len(body)} bytes of {header['size']}")
    if digest(body) != header["sha256"]:
        raise PackError("its bytes were changed: the checksum differs")
    return header, body


def digest(data: bytes) -> str:
    """The SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _mark(data: bytes) -> str:
    return digest(data)[:16]


def to_text(data: bytes) -> str:
    """A short pickle as one word, for an item of a job; the versions are in the archive that goes with it.

    >>> from_text(to_text(b"abc"))
    b'abc'
    """
    return _mark(data) + "." + base64.b64encode(data).decode("ascii")


def from_text(word: str) -> bytes:
    """Reads what :func:`to_text` wrote; raises :class:`PackError`."""
    mark, _, text = word.partition(".")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as e:
        raise PackError("it is not a word of ours") from e
    if mark != _mark(data):
        raise PackError("its bytes were changed: the checksum differs")
    return data


def pack_many(bodies: Sequence[bytes]) -> bytes:
    """Puts many pickles into one file, so that the number of files does not grow with tasks."""
    return pack("calls", b"".join(bodies), sizes=[len(b) for b in bodies], marks=[_mark(b) for b in bodies])


def read_one(path: str, position: int) -> bytes:
    """Reads the pickle at a position of such a file, and only that."""
    with open(path, "rb") as f:
        if f.read(len(MAGIC)) != MAGIC:
            raise PackError("it does not begin as a pickle of Shoal's does")
        header = _header(f.readline(MAX_HEADER))
        sizes, marks = header.get("sizes"), header.get("marks")
        if not isinstance(sizes, list) or not isinstance(marks, list) or not 0 <= position < min(len(sizes), len(marks)):
            raise PackError(f"it has no call number {position}")
        before: List[int] = sizes[:position]
        f.seek(sum(before), os.SEEK_CUR)
        data = f.read(sizes[position])
    if _mark(data) != marks[position]:
        raise PackError("its bytes were changed: the checksum differs")
    return data


def write_whole(path: str, data: bytes) -> None:
    """Writes a file so that nobody ever sees a part of it: under another name first, then renamed.

    It is for its owner's eyes: whoever could write it could run code as whoever reads it.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = os.path.join(directory, ".writing-" + os.urandom(8).hex())
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
