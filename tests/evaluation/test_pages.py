"""What the pages on evaluation and the command line say can be run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import dask
import matplotlib

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    code = blocks("evaluation.md", "python")
    assert len(code) > 5
    with dask.config.set(scheduler="synchronous"):
        exec(compile("\n".join(code), "evaluation.md", "exec"), {})
    assert (tmp_path / "reliability.png").exists()


def test_command_line(tmp_path):
    # What takes seconds is left to the tests of the command.
    code = [block for block in blocks("cli.md", "sh") if "bench" not in block]
    assert len(code) == 3
    script = f'set -e\npython() {{ "{sys.executable}" "$@"; }}\n'
    script += 'crossent() { python -m crossent "$@"; }\n'
    done = subprocess.run(
        ["bash", "-c", script + "\n".join(code)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "state.json").exists()
    assert done.stdout.count("perplexity") >= 4
