"""No call touches a byte beyond its arrays: on every instruction set, against guard pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_threads_simd import LEVELS, NATIVE

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages are made with Linux's mprotect")
@pytest.mark.parametrize("level", LEVELS[: LEVELS.index(NATIVE) + 1])
def test_no_byte_beyond_an_array(level, tmp_path):
    """In a process of its own, which a fault ends: the last call is in the file."""
    last = tmp_path / "last call"
    done = subprocess.run(
        [sys.executable, "guarded.py", str(last)],
        env={**os.environ, "CROSSENT_SIMD": level},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{last.read_text()}\n{done.stderr}"
    count, _, reached = done.stdout.split()
    assert reached == level
    assert int(count) > 10_000
