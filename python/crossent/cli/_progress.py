"""A progress bar on a terminal: tqdm's where it is installed, else a plain one."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol


class Bar(Protocol):
    """What is done so far, of so much."""

    def update(self, n: int) -> object: ...
    def close(self) -> object: ...


class Nothing:
    """No bar: for files and pipes."""

    def update(self, n: int) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Shows nothing."""


class Plain:
    """Share, rate and time left in one line, written over itself ten times a second at the most."""

    def __init__(self, total: int, done: int, unit: str, out: Any) -> None:
        self._total, self._done, self._unit, self._out = total, done, unit, out
        self._first, self._start, self._shown = done, time.monotonic(), 0.0

    def update(self, n: int) -> None:
        """So many more are done."""
        self._done += n
        now = time.monotonic()
        if now - self._shown < 0.1 and self._done < self._total:
            return
        self._shown = now
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        left = clock((self._total - self._done) / rate) if rate else "?"
        share = self._done / self._total if self._total else 1.0
        blocks = "#" * int(30 * share)
        line = f"{share:4.0%} |{blocks:30}| {self._done}/{self._total} {self._unit}"
        self._out.write(f"\r{line}, {rate:,.0f}/s, {left} left\x1b[K")
        self._out.flush()

    def close(self) -> None:
        """Leaves the line."""
        self._out.write("\n")
        self._out.flush()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def bar(total: int, done: int, unit: str, quiet: bool) -> Bar:
    """The bar for this terminal, if it is one."""
    if quiet or not sys.stderr.isatty():
        return Nothing()
    try:
        from tqdm import tqdm
    except ImportError:
        return Plain(total, done, unit, sys.stderr)
    made: Bar = tqdm(
        total=total, initial=done, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True
    )
    return made
