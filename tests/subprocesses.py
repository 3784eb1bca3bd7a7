"""Python processes in the tests' folder."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(script, *arguments, timeout=300, **environment):
    """A process of a file or of its text, with more environment variables."""
    what = [script] if script.endswith(".py") else ["-c", script]
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *what, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def printed(script, *arguments, **options):
    """What such a process prints, which has to end well."""
    done = run(script, *arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
