"""Optional packages, which are imported where they are needed and nowhere else."""

from __future__ import annotations

import importlib
from typing import Any


def needs(module: str, extra: str) -> Any:
    """The module, or an error that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is not installed: pip install 'crossent[{extra}]'", name=package
        ) from error
