"""Shared fixtures, and the table of worst errors at the end of a run."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

WORST = pytest.StashKey()


def pytest_configure(config):
    config.stash[WORST] = {}
    config.addinivalue_line(
        "markers", "gradient(name): checks the gradient of this loss against finite differences"
    )


@pytest.fixture
def worst(request):
    """worst(label, where, ulps): notes the largest error seen under a label, for the summary."""
    table = request.config.stash[WORST]

    def note(label, where, ulps):
        table[label] = max(table.get(label, (0.0, "")), (float(ulps), where))

    return note


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(list(request.node.name.encode()))


def pytest_sessionfinish(session):
    """Of a process of its own, for that which began it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["worst"] = session.config.stash[WORST]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    table = node.config.stash[WORST]
    for label, worst in getattr(node, "workeroutput", {}).get("worst", {}).items():
        table[label] = max(table.get(label, (0.0, "")), tuple(worst))


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash.get(WORST, {})
    if table:
        terminalreporter.section("worst errors, in ulp of the result's type")
        for label in sorted(table):
            ulps, where = table[label]
            terminalreporter.write_line(f"{ulps:8.3f}  {label:50}  {where}")
