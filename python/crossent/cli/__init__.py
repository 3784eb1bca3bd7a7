"""The command line: `crossent`, or `python -m crossent`."""

from crossent.cli._main import main

__all__ = ["main"]
