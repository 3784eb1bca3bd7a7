"""`crossent evaluate`: files in, measures out; it can be interrupted and go on."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from crossent.cli import _progress, _report, _state
from crossent.cli._errors import Exit, Refused, discard_output, set_threads
from crossent.cli._files import Source, open_array
from crossent.cli._state import real_path
from crossent.cli._table import json_safe, lines
from crossent.evaluation import Evaluation, evaluate
from crossent.evaluation._extra import needs

# How often the state is kept while it runs.
CHECKPOINT_SECONDS = 30.0
WORST_IN_REPORT = 20
NAMES = {
    "input": "LOGITS",
    "target": "TARGETS",
    "baseline": "--baseline",
    "sample_weight": "--sample-weight",
    "byte_count": "--bytes",
    "group": "--group",
    "class_mask": "--class-mask",
}
# By a part of the message.
ADVICE = {
    "out of range": "; --ignore-index N leaves rows of target N out",
    "must hold probabilities": "; --kind logits takes any numbers",
    "negative probabilities": "; --kind logits takes any numbers",
    "--class-mask must be": ": save it with astype(bool)",
    "--group must be integers": ": save numbers of groups, or a Parquet column of strings",
}


class Stopped(Exception):
    """A signal asked for an end; the slice that was being read is in the sums."""


def run(options: argparse.Namespace) -> int:
    """Evaluates, prints, and says how it ended."""
    set_threads(options.threads)
    inputs = opened(options)
    arguments = evaluation_arguments(options)

    @functools.cache
    def run_of() -> dict[str, Any]:
        return identity(options, inputs, arguments)

    path = None if options.resume is None else Path(options.resume)
    report = None if options.report is None else Path(options.report)
    check_outputs(inputs, path, report)
    try:
        evaluation, position = Evaluation(**arguments), 0
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(str(error)) from error
    if path is not None:
        # The state is for the files as they are before they are read.
        run_of()
    if path is not None and path.exists():
        evaluation, position, differs = _state.load(path, run_of())
        if differs:
            note(f"{differs}: last bits may differ from those of one run")

    walk = Walk(evaluation, position, inputs["logits"].shape, path, run_of, options.quiet)
    with walk.signals():
        try:
            walk.go(options, inputs)
        except Refused as error:
            if path is None or walk.position == position:
                raise
            try:
                walk.save(path)
            except OSError as failure:
                raise Refused(f"{error}; and {path} cannot be written: {failure}") from error
            raise Refused(f"{error}; {path} keeps the {walk.position} before") from error

    # Files first, as who reads the output may be gone; yet a file that cannot be written must not
    # take the results with it.
    failures: list[Exception] = []

    def attempt(write: Callable[[], object]) -> None:
        try:
            write()
        except (Refused, OSError) as error:
            failures.append(error)

    def keep() -> None:
        nonlocal path
        if path is None:
            path = walk.save_somewhere()
        else:
            walk.save(path)

    def write_report(to: Path) -> None:
        page = _report.page(evaluation, inputs["logits"].name, inputs["targets"].name, options.bits)
        _state.write_atomically(to, page)

    if path is not None or not walk.complete:
        attempt(keep)
    if report is not None and walk.complete:
        attempt(lambda: write_report(report))
    try:
        show(evaluation, walk, options)
        sys.stdout.flush()
    except BrokenPipeError:
        if walk.complete and not failures:
            raise
        discard_output()
    if failures:
        raise failures[0]
    if walk.complete:
        return Exit.DONE
    assert path is not None
    rows = inputs["logits"].shape[0]
    note(f"interrupted: {walk.position} of {rows} are in the sums above")
    note(f"go on with: {command_line(options, path)}")
    return Exit.TERMINATED if walk.signal == signal.SIGTERM else Exit.INTERRUPTED


def note(message: str) -> None:
    print(f"crossent: {message}", file=sys.stderr)


def opened(options: argparse.Namespace) -> dict[str, Source]:
    """The files, by what they are."""
    specs = {
        "logits": options.logits,
        "targets": options.targets,
        "baseline": options.baseline,
        "sample-weight": options.sample_weight,
        "group": options.group,
        "class-mask": options.class_mask,
        "bytes": None if is_number(options.bytes) else options.bytes,
    }
    inputs = {name: open_array(spec) for name, spec in specs.items() if spec is not None}
    for name in ("logits", "baseline"):
        source = inputs.get(name)
        if source is None or np.dtype(source.dtype) != np.dtype("V2"):
            continue
        if options.dtype is None:
            raise Refused(f"{source.name} does not say what its 16 bits are: --dtype bfloat16?")
        inputs[name] = source.viewed(np.dtype(needs("ml_dtypes", "eval").bfloat16))
    check_shapes(inputs, options.axis)
    check_types(inputs)
    if is_number(options.bytes) and "sample-weight" in inputs:
        raise Refused(
            "--bytes must be a file of bytes a row where there is --sample-weight: "
            "a number for all rows cannot be weighed"
        )
    return inputs


def check_outputs(inputs: dict[str, Source], state: Path | None, report: Path | None) -> None:
    """Files that are written must be none that are read, nor one another."""
    for option, path in (("--resume", state), ("--report", report)):
        if path is None:
            continue
        target = real_path(path)
        if not target.parent.is_dir():
            raise Refused(f"{option} {path} cannot be written: its folder does not exist")
        if path.is_dir():
            raise Refused(f"{option} {path} cannot be written: it is a directory")
        for source in inputs.values():
            real = real_path(source.path)
            if (
                real == target
                or real in target.parents
                or (target.exists() and target.samefile(real))
            ):
                raise Refused(f"{option} {path} would replace an input, {source.name}")
    if state is not None and state.exists() and not state.is_file():
        raise Refused(f"--resume {state} cannot hold a state: it is no regular file")
    if state is not None and report is not None and real_path(state) == real_path(report):
        raise Refused(f"--report {report} would replace the state of --resume")


def is_number(text: str | None) -> bool:
    return text is not None and text.isdecimal()


def check_shapes(inputs: dict[str, Source], axis: int) -> None:
    """Shapes, before anything is read; with what to do about them."""
    shape = inputs["logits"].shape
    targets = inputs["targets"].shape
    if len(shape) < 2:
        what = "has no rows of classes to be LOGITS"
        hint = "give it second, after them" if len(targets) > 1 else "save it with shape (N, C)"
        raise Refused(f"{inputs['logits'].name} {what}, its shape is {shape}: {hint}")
    if not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
        raise Refused(f"--axis {axis} is not an axis of {shape} but the first")
    axis %= len(shape)
    without = shape[:axis] + shape[axis + 1 :]
    if targets != without:
        hint = ""
        for other in range(1, len(shape)):
            if shape[:other] + shape[other + 1 :] == targets:
                hint = f"; with --axis {-1 if other == len(shape) - 1 else other} they fit"
        raise Refused(
            f"{inputs['targets'].name} must have the shape {without} of {inputs['logits'].name} "
            f"without classes, and has {targets}{hint}"
        )
    for name, wanted in (
        ("baseline", shape),
        ("sample-weight", without),
        ("group", without),
        ("bytes", without),
        ("class-mask", (shape[axis],)),
    ):
        if name in inputs and inputs[name].shape != wanted:
            raise Refused(f"--{name} must have the shape {wanted}, and has {inputs[name].shape}")


def check_types(inputs: dict[str, Source]) -> None:
    """Types that kernels refuse, with what to do about them."""
    logits, targets = inputs["logits"], inputs["targets"]
    for source in filter(None, (logits, inputs.get("baseline"))):
        dtype = np.dtype(source.dtype)
        if dtype.kind != "f" and dtype.name != "bfloat16":
            raise Refused(
                f"{source.name} must hold floating-point numbers, and holds {dtype}: save it as "
                "float32, say"
            )
    if np.dtype(targets.dtype).kind not in "iu":
        raise Refused(
            f"{targets.name} must hold target classes, which are integers, and holds "
            f"{targets.dtype}: save it as int64, say"
        )


def evaluation_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Those of `Evaluation`."""
    worst = options.worst
    if worst is None:
        worst = 0 if options.report is None else WORST_IN_REPORT
    return {
        "kind": options.kind,
        "ignore_index": options.ignore_index,
        "temperature": options.temperature,
        "softcap": options.softcap,
        "top_k": options.top_k,
        "bins": options.bins,
        "per_class": options.per_class or options.report is not None,
        "worst": worst,
    }


def identity(
    options: argparse.Namespace, inputs: dict[str, Source], arguments: dict[str, Any]
) -> dict[str, Any]:
    """What must be the same for a run to go on: the inputs and what is summed of them."""
    fixed = {
        **arguments,
        "top_k": list(arguments["top_k"]),
        "axis": options.axis % len(inputs["logits"].shape),
        "bytes": options.bytes if is_number(options.bytes) else None,
        "dtype": options.dtype,
    }
    return {**fixed, **{f"{name} file": source.fingerprint() for name, source in inputs.items()}}


class Walk:
    """A run over the files: where it is, what asked it to stop, when it was kept."""

    def __init__(
        self,
        evaluation: Evaluation,
        position: int,
        shape: tuple[int, ...],
        path: Path | None,
        run_of: Callable[[], dict[str, Any]],
        quiet: bool,
    ) -> None:
        self.evaluation, self.position, self.signal = evaluation, position, None
        self._path, self._run, self._length = path, run_of, shape[0]
        self._kept = time.monotonic()
        self._bar = _progress.bar(self._length, position, "rows", quiet)

    signal: int | None

    @property
    def complete(self) -> bool:
        """Whether everything is in the sums."""
        return self.position == self._length

    @contextmanager
    def signals(self) -> Iterator[None]:
        """The first Ctrl-C ends the run after the slice that is being read, so that sums are whole;
        a second one ends it at once."""

        def stop(number: int, _: FrameType | None) -> None:
            self.signal = number
            signal.signal(number, signal.default_int_handler)

        before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            self._bar.close()
            for each, handler in before.items():
                signal.signal(each, handler)

    def go(self, options: argparse.Namespace, inputs: dict[str, Source]) -> None:
        """Reads on from where it is."""
        mask = inputs.get("class-mask")
        class_mask = None
        if mask is not None:
            class_mask = np.asarray(mask[0 : mask.shape[0]])
            ndim, axis = len(inputs["logits"].shape), options.axis
            class_mask = class_mask.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])
        of_all = int(options.bytes) if is_number(options.bytes) else None
        # Of no rows, too, the classes are known once they were read.
        if self.complete and self.evaluation.classes is not None:
            return
        try:
            evaluate(
                inputs["logits"],
                inputs["targets"],
                axis=options.axis,
                baseline=inputs.get("baseline"),
                sample_weight=inputs.get("sample-weight"),
                byte_count=inputs.get("bytes", of_all),
                group=inputs.get("group"),
                class_mask=class_mask,
                batch_rows=options.batch_rows,
                start=self.position,
                into=self.evaluation,
                on_batch=self._after,
            )
        except Stopped:
            pass
        except (TypeError, ValueError, IndexError) as error:
            raise Refused(renamed(str(error))) from error

    def _after(self, evaluation: Evaluation, position: int) -> None:
        self._bar.update(position - self.position)
        self.position = position
        if self._path is not None and time.monotonic() - self._kept > CHECKPOINT_SECONDS:
            self.save(self._path)
        if self.signal is not None and not self.complete:
            raise Stopped

    def save(self, path: Path) -> None:
        """Keeps the state."""
        _state.save(path, self.evaluation, self.position, self._run())
        self._kept = time.monotonic()

    def save_somewhere(self) -> Path:
        """Keeps the state in a new file here, or where temporary files are."""
        for folder in (".", tempfile.gettempdir()):
            try:
                handle, name = tempfile.mkstemp(prefix="crossent-", suffix=".json", dir=folder)
            except OSError:
                continue
            os.close(handle)
            path = Path(Path(name).name) if folder == "." else Path(name)
            self.save(path)
            return path
        raise Refused("interrupted, and there is no place to keep the state: use --resume FILE")


def renamed(message: str) -> str:
    """The error with the names that the command line has for arguments, and what to do about it."""
    message = re.sub(rf"\b({'|'.join(NAMES)})\b", lambda found: NAMES[found[0]], message)
    return message + next((advice for part, advice in ADVICE.items() if part in message), "")


def command_line(options: argparse.Namespace, path: Path) -> str:
    """The command that goes on."""
    given = list(options.given)
    if options.resume is None:
        given += ["--resume", str(path)]
    return shlex.join(["crossent", *given])


def show(evaluation: Evaluation, walk: Walk, options: argparse.Namespace) -> None:
    """The table or the JSON."""
    if not options.json:
        print("\n".join(lines(evaluation, options.bits, options.per_class)))
        return
    found: dict[str, Any] = {
        "complete": walk.complete,
        "position": walk.position,
        **evaluation.summary(),
        "reliability": evaluation.reliability(),
    }
    if options.per_class:
        found["by_class"] = evaluation.by_class()
    if options.group:
        groups = evaluation.by_group()
        diagrams = [evaluation.reliability(group=label) for label in groups["label"].tolist()]
        found["by_group"] = {**groups, "reliability": diagrams}
    if options.worst:
        found["worst_tokens"] = [token._asdict() for token in evaluation.worst_tokens()]
    print(json.dumps(json_safe(found), allow_nan=False))
