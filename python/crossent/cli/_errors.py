"""How a command ends: exit codes, and the errors that are one line."""

from __future__ import annotations

from enum import IntEnum


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
