"""Where an evaluation stands, in a file: written whole or not at all, for its own inputs alone."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crossent
from crossent.cli._errors import Refused
from crossent.evaluation import Evaluation

FORMAT, VERSION = "crossent.state", 1


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file, of which any reader sees the old content or the new. A link stays, and what
    is no regular file, such as a pipe, is written to."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    path = real_path(path)
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    )
    try:
        with file:
            # As a file that was opened for writing would have it, and not readable by nobody else.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(file.name, 0o666 & ~umask)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Windows moves no file that is open.
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise


def real_path(path: Path) -> Path:
    """Where links lead; unlike `Path.resolve`, no version of Python fails on those in a circle."""
    return Path(os.path.realpath(path))


def save(path: Path, evaluation: Evaluation, position: int, run: Mapping[str, Any]) -> None:
    """Keeps the sums, and how much of the first axis is in them."""
    state = {
        "format": FORMAT,
        "version": VERSION,
        "crossent": crossent.__version__,
        "simd": crossent.simd_level(),
        "run": run,
        "position": position,
        "evaluation": evaluation.to_dict(),
    }
    write_atomically(path, json.dumps(state) + "\n")


def load(path: Path, run: Mapping[str, Any]) -> tuple[Evaluation, int, str | None]:
    """The sums, where to go on, and why the bits may be others than those of one run."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise KeyError("format")
        if state["version"] != VERSION:
            raise Refused(
                f"{path} has version {state['version']}, and this crossent reads {VERSION}"
            )
        kept, position = state["run"], state["position"]
        # An input that only one of the two had differs, too.
        for name in (*run, *(name for name in kept if name not in run)):
            if kept.get(name) != run.get(name):
                by_report = " (--report sets it, too)" if name in ("per_class", "worst") else ""
                raise Refused(
                    f"{path} is of other inputs or options: {name} differs{by_report}; "
                    "give those that it was made with, or another file"
                )
        if type(position) is not int or position < 0:
            raise ValueError(f"position is {position!r}")
        evaluation = Evaluation.from_dict(state["evaluation"])
        made = str(state["crossent"]), str(state["simd"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{path} is no state of an evaluation: {error}; delete it") from error
    here = crossent.__version__, crossent.simd_level()
    differs = None
    if made != here:
        differs = f"{path} was made by {' with '.join(made)}, and this is {' with '.join(here)}"
    return evaluation, position, differs
