"""Tables and progress: HTML in notebooks, a line on a terminal, nothing in a log."""

from __future__ import annotations

import html
import sys
import time
from typing import Any, Dict, Iterable, Optional, Sequence, TextIO

COLOURS = {"succeeded": "#2e7d32", "running": "#1565c0", "starting": "#64b5f6", "queued": "#cfd8dc", "failed": "#c62828",
           "timedout": "#ef6c00", "cancelled": "#757575"}  # fmt: skip
ORDER = ("succeeded", "running", "starting", "queued", "failed", "timedout", "cancelled")
EVERY = 0.2  # seconds between two redraws


def in_notebook() -> bool:
    """Whether this is a kernel that shows HTML."""
    module = sys.modules.get("IPython")
    if module is None:
        return False
    shell = module.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def words(counts: Dict[str, int]) -> str:
    """Counts as a phrase.

    >>> words({"queued": 2, "succeeded": 5, "failed": 0})
    '5 succeeded, 2 queued'
    """
    return ", ".join(f"{counts[s]} {s}" for s in ORDER if counts.get(s)) or "nothing yet"


def bar_html(counts: Dict[str, int], total: Optional[int] = None) -> str:
    """A bar whose parts are tasks by state."""
    whole = max(total or 0, sum(counts.values()), 1)
    parts = "".join(
        f'<div title="{counts[s]} {s}" style="width:{100 * counts[s] / whole:.2f}%;background:{COLOURS[s]}"></div>' for s in ORDER if counts.get(s)
    )
    return f'<div style="display:flex;width:20em;height:0.9em;background:#eceff1;border-radius:3px;overflow:hidden">{parts}</div>'


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table; the cells are HTML already."""
    top = "".join(f'<th style="text-align:left">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f'<td style="text-align:left">{c}</td>' for c in r) + "</tr>" for r in rows)
    return f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def jobs_html(jobs: Iterable[Any]) -> str:
    """A table of jobs."""
    rows = []
    for j in jobs:
        s = j.status()
        rows.append([escape(j.id), escape(j.name), escape(s.state), bar_html(s.counts), escape(words(s.counts)), escape(s.reason)])
    return table_html(["job", "name", "state", "", "tasks", "reason"], rows)


class Progress:
    """Shows how far something is. The base shows nothing."""

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Redrawn(Progress):
    def __init__(self, what: Any) -> None:
        self.what = what
        self.last = 0.0

    def update(self) -> None:
        if time.monotonic() - self.last >= EVERY:
            self.draw()
            self.last = time.monotonic()

    def close(self) -> None:
        self.draw()

    def draw(self) -> None:
        raise NotImplementedError


class _Notebook(_Redrawn):
    """A cell's output that is replaced as things go on."""

    def __init__(self, what: Any) -> None:
        super().__init__(what)
        self.handle: Any = None

    def draw(self) -> None:
        from IPython.display import HTML, display

        content = HTML(progress_html(self.what))
        if self.handle is None:
            self.handle = display(content, display_id=True)
        else:
            self.handle.update(content)


class _Line(_Redrawn):
    """A line on a terminal that is written again; elsewhere a line for every tenth."""

    def __init__(self, what: Any, out: TextIO) -> None:
        super().__init__(what)
        self.out = out
        self.terminal = out.isatty()
        self.tenth = -1

    def draw(self) -> None:
        counts, total = progress_of(self.what)
        over = sum(counts.get(s, 0) for s in ("succeeded", "failed", "timedout", "cancelled"))
        whole = max(total or 0, sum(counts.values()), 1)
        text = f"{getattr(self.what, 'name', '') or 'job'}: {over} of {whole} done ({words(counts)})"
        if self.terminal:
            self.out.write(f"\r\033[K{text}")
        elif over * 10 // whole > self.tenth:
            self.tenth = over * 10 // whole
            self.out.write(text + "\n")
        self.out.flush()

    def close(self) -> None:
        super().close()
        if self.terminal:
            self.out.write("\n")
            self.out.flush()


def progress_of(what: Any) -> Any:
    """Counts and, where it is known, the number of all tasks, of a job or a map; asks nobody."""
    if hasattr(what, "_progress"):
        return what._progress()
    counts = dict(what._seen.status.get("counts") or {})
    return counts, sum(counts.values())


def progress_html(what: Any) -> str:
    counts, total = progress_of(what)
    over = sum(counts.get(s, 0) for s in ("succeeded", "failed", "timedout", "cancelled"))
    whole = max(total or 0, sum(counts.values()), 1)
    row = [escape(getattr(what, "name", "") or ""), bar_html(counts, whole), f"{over} of {whole} done", escape(words(counts))]
    return table_html(["", "", "", ""], [row])


def progress(what: Any, wanted: Optional[bool]) -> Progress:
    """What shows the progress of something: by default only notebooks do."""
    if in_notebook() and wanted is not False:
        return _Notebook(what)
    return _Line(what, sys.stderr) if wanted else Progress()
