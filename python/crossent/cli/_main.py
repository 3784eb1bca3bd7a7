"""The parser, and what becomes of errors. A command's own module is imported when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from crossent import __version__
from crossent.cli._errors import Exit, Refused, discard_output

EPILOG = """\
exit codes:
  0    done
  1    an input was refused, or a file could not be read or written
  2    the command line is wrong
  3    an optional package is missing
  130  interrupted (Ctrl-C); what was summed so far was printed and kept
  143  terminated (SIGTERM); likewise
"""
FILES = """\
files: .npy (read through a memory map), .npz, .safetensors, .zarr, .parquet. An array within a file
is FILE:KEY, a column of a Parquet file FILE:COLUMN. Nothing is read as a whole: files may be larger
than memory.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    result = argparse.ArgumentParser(
        prog="crossent",
        description="Entropy and cross-entropy: evaluate a model's logits, measure this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"crossent {__version__}")
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_evaluate(commands)
    add_bench(commands)
    add_doctor(commands)
    return result


Commands = argparse._SubParsersAction  # its public name is none


def add_evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="cross-entropy, perplexity, accuracy, calibration of logits in files",
        description="Evaluates logits in one file against target classes in another.",
        epilog=FILES + "\n" + EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("logits", metavar="LOGITS", help="logits, of shape (N, C) or (N, C, ...)")
    add("targets", metavar="TARGETS", help="class indices, of the shape without C")

    data = command.add_argument_group("what the data is")
    add = data.add_argument
    add("--kind", choices=("logits", "log_probabilities", "probabilities"), default="logits",
        help="what LOGITS holds (default: logits)")  # fmt: skip
    add("--axis", type=int, default=1, metavar="N",
        help="the class axis; -1 for (batch, time, classes) (default: 1)")  # fmt: skip
    add("--baseline", metavar="FILE",
        help="another model's logits: how far from its distributions these are")  # fmt: skip
    add("--ignore-index", type=int, default=-100, metavar="N",
        help="the target of rows that do not count (default: -100)")  # fmt: skip
    add("--temperature", type=number, default=1.0, metavar="T", help="what logits are divided by")
    add("--softcap", type=number, metavar="C", help="logits become C tanh(logits / C)")
    add("--class-mask", metavar="FILE", help="booleans, one a class: False does not exist")
    add("--sample-weight", metavar="FILE", help="a weight a row")
    add("--group", metavar="FILE", help="a label a row: integers, or strings of a Parquet column")
    add("--bytes", metavar="N|FILE", help="bytes of text, in all or a row: for bits per byte")
    add("--dtype", choices=("bfloat16",),
        help="what the 16 bits of a file are that does not say (needs ml_dtypes)")  # fmt: skip

    wanted = command.add_argument_group("what is wanted")
    add = wanted.add_argument
    add("--top-k", type=whole_numbers, default=(1, 5), metavar="K,...",
        help="accuracy among the K most likely classes (default: 1,5)")  # fmt: skip
    add("--bins", type=positive, default=15, metavar="N", help="bins of confidence (default: 15)")
    add("--per-class", action="store_true", help="measures of each target class")
    add("--worst", type=natural, metavar="N",
        help="the N least likely rows (default: 0; 20 in a report)")  # fmt: skip
    add("--bits", action="store_true", help="entropies in bits, not in nats")
    add("--json", action="store_true", help="print JSON (always in nats)")
    add("--report", metavar="FILE", help="write an HTML page, which needs no network")

    how = command.add_argument_group("how it runs")
    add = how.add_argument
    add("--resume", metavar="FILE",
        help="go on from this state if the file exists; keep the state in it")  # fmt: skip
    add("--batch-rows", type=positive, metavar="N",
        help="how much of the first axis is read at a time (default: about 64 MiB)")  # fmt: skip
    add("--threads", type=positive, metavar="N", help="threads (default: all cores allowed)")
    add("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(module="_evaluate")


def add_bench(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "bench",
        help="crossent on this machine, beside the memory and what else is installed",
        description="Mean cross-entropy of float32 logits, and with its gradient: crossent, the "
        "floor (reading the logits, or copying them), NumPy, and torch, JAX, SciPy and "
        "scikit-learn where they are installed. Contestants take turns; medians are compared.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--shape", type=shape, action="append", metavar="ROWSxCLASSES",
        help="a shape to measure, again and again for several")  # fmt: skip
    add("--peers", type=names, metavar="NAME,...",
        help="only these: numpy, torch, jax, scipy, sklearn; none for none")  # fmt: skip
    add("--repeats", type=positive, default=11, metavar="N", help="turns (default: 11)")
    add("--threads", type=positive, metavar="N", help="threads of crossent")
    add("--json", action="store_true", help="print JSON, in seconds")
    command.set_defaults(module="_bench")


def add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "doctor",
        help="versions, instruction set, threads, limits, optional packages",
        description="What crossent finds on this machine; exits with 1 where something is wrong.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(module="_doctor")


def number(text: str) -> float:
    return float(text)


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part != "none")


def shape(text: str) -> tuple[int, int]:
    rows, classes = map(positive, text.split("x"))
    if classes == 1:
        raise argparse.ArgumentTypeError(f"{text} has one class, whose loss is 0: give two or more")
    return rows, classes


# argparse names the type where a value is not one.
natural.__name__ = positive.__name__ = "integer"
whole_numbers.__name__ = "list of integers"
shape.__name__ = "shape"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name; returns what the shell is told.

    Example:
        >>> from crossent.cli import main
        >>> main(["evaluate", "no-such-file.npy", "targets.npy"])
        1
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(given)
    options.given = given
    if sys.stderr is None:
        # What is printed to no file goes to standard output, where messages do not belong.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        return told("standard output is closed: there is no place for results", Exit.REFUSED)
    try:
        code = int(import_module(f"crossent.cli.{options.module}").run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        discard_output()
        return int(Exit.REFUSED)
    except ImportError as error:
        return told(error, Exit.MISSING)
    except (Refused, OSError) as error:
        return told(error, Exit.REFUSED)
    except MemoryError as error:
        return told(f"out of memory: {error}" if str(error) else "out of memory", Exit.REFUSED)
    except KeyboardInterrupt:
        return told("interrupted", Exit.INTERRUPTED)


def told(message: object, code: Exit) -> int:
    """The error in one line."""
    print(f"crossent: error: {' '.join(str(message).split())}", file=sys.stderr)
    return int(code)
