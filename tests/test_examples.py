"""The example that is a page: its sections hold, and the committed page is what they say now."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


connections = load("connections")


@cache
def numbers_of(section):
    # For matrices this small, BLAS threads wait for each other at length.
    with threadpool_limits(limits=1, user_api="blas"):
        return section()


@pytest.mark.parametrize("section", connections.SECTIONS, ids=lambda section: section.__name__)
def test_section_holds(section):
    """A section asserts what it claims; all of its numbers find their places."""
    text = connections.render(section, numbers_of(section))
    assert text.startswith("## ")
    assert "@{" not in text


def test_committed_page_is_what_the_script_writes(tmp_path):
    computed = {section: numbers_of(section) for section in connections.SECTIONS}
    connections.write(tmp_path, computed)
    page = (tmp_path / "connections.md").read_text(encoding="utf-8")
    assert (DOCS / "connections.md").read_text(encoding="utf-8") == page, "run `make connections`"

    named = set(re.findall(r"\((figures/[^)]+)\)", page))
    assert len(named) == len(connections.SECTIONS)
    for directory in (tmp_path, DOCS):
        written = (directory / "figures").glob("connections-*.svg")
        assert {path.relative_to(directory).as_posix() for path in written} == named
