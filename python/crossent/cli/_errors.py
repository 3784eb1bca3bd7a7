"""How a command ends: exit codes, and the errors that are one line."""

from __future__ import annotations

import os
import sys
from enum import IntEnum

import crossent


class Exit(IntEnum):
    """What the shell is told."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    MISSING = 3
    INTERRUPTED = 130
    TERMINATED = 143


class Refused(Exception):
    """An input that cannot be used; the message says what to do about it."""


def set_threads(n: int | None) -> None:
    """What `--threads` asks for."""
    try:
        if n is not None:
            crossent.set_num_threads(n)
    except (ValueError, OverflowError) as error:
        raise Refused(f"--threads {str(error).removeprefix('n ')}") from error


def discard_output() -> None:
    """Who reads has seen enough, or there is no room: what is still buffered must not fail once
    more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
