"""The examples: what they claim holds, and the committed page is what its script writes now."""

import importlib.util
import re
import subprocess
import sys
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


def run_python(*arguments):
    """In a process of its own: the example changes settings of torch, and measures its memory."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_training_on_torch_is_the_same(tmp_path):
    picture = tmp_path / "curves.png"
    done = run_python("torch_training.py", "--steps", "4", "--out", str(picture))
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")

    curves = re.findall(r"^ +(\d+) +(\d\.\d+) +(\d\.\d+)$", done.stdout, re.MULTILINE)
    assert [int(step) for step, _, _ in curves] == [1, 4]
    for _, theirs, ours in curves:
        assert abs(float(theirs) - float(ours)) <= 1e-5
    assert float(curves[-1][2]) < float(curves[0][2])
    assert float(re.search(r"at most (\S+) apart", done.stdout)[1]) <= 1e-5

    pattern = r"^ +(\w+) +time .*, (\S+)% of .* memory .*, (\S+)% of .*: (\S+) times the logits$"
    shares = {
        name: [float(number) for number in numbers]
        for name, *numbers in re.findall(pattern, done.stdout, re.MULTILINE)
    }
    assert list(shares) == ["torch", "crossent"]
    assert all(0 < time < 100 for time, _, _ in shares.values())
    if Path("/proc/self/clear_refs").exists():
        assert all(0 < memory < 100 for _, memory, _ in shares.values())
        # The gradient, and no other buffer of its size.
        assert 0.9 < shares["crossent"][2] < 1.1


def test_training_with_another_loss_is_an_error():
    script = """
import sys
import torch_training as example

true = example.LOSSES["crossent"]
example.LOSSES["crossent"] = lambda logits, targets: 1.00001 * true(logits, targets)
sys.argv[1:] = ["--steps", "2"]
sys.exit(example.main())
"""
    done = run_python("-c", script)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.endswith("error: the losses differ\n")


def test_boosting_trains_on_the_objectives():
    done = run_python("boosting.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(re.search(r"scores at most (\S+) apart", done.stdout)[1]) < 1e-4
    accuracies = [float(share) for share in re.findall(r"accuracy (\S+)%", done.stdout)]
    assert len(accuracies) == 6
    assert min(accuracies) > 80
    # Smoothing keeps the surest answer from certainty.
    assert float(re.search(r"surest answer has probability (\S+)", done.stdout)[1]) < 0.97


def test_calibration_lowers_error_and_loss(tmp_path):
    picture = tmp_path / "calibration.png"
    done = run_python("calibration.py", "--out", str(picture))
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    pattern = r"calibration error (\S+), log loss (\S+), accuracy (\S+)%"
    numbers = [tuple(map(float, found)) for found in re.findall(pattern, done.stdout)]
    assert len(numbers) == 4
    for before, after in (numbers[:2], numbers[2:]):
        assert after[0] < before[0]
        assert after[1] < before[1]
        assert after[2] == before[2]


def test_perplexity_of_a_language_model():
    done = run_python("perplexity.py", "--steps", "40", "--bytes", "60000")
    assert done.returncode == 0, done.stdout + done.stderr
    pattern = r"^(\w+) +([\d.]+) +([\d.]+) +([\d.]+)% +([\d.]+)%$"
    found = {name: list(map(float, rest)) for name, *rest in re.findall(pattern, done.stdout, re.M)}
    assert list(found) == ["uniform", "float32", "float16", "int8"]
    assert found["uniform"][:3] == [256, 8, 0.39]
    # It has learned something, and narrow numbers have lost next to nothing of it.
    assert found["float32"][1] < 4
    for name in ("float16", "int8"):
        assert abs(found[name][1] - found["float32"][1]) < 0.05
    pattern = r"^(\w+) +(\S+e\S+) (\S+) (\S+) (\S+)$"
    lost = {name: list(map(float, rest)) for name, *rest in re.findall(pattern, done.stdout, re.M)}
    assert lost["float32"] == [0, 0, 0, 0]
    assert 0 < lost["float16"][0] < lost["int8"][0] < 0.01
    assert lost["int8"][1] <= lost["int8"][2] <= lost["int8"][3]


def test_onnx_runtime_without_a_copy():
    done = run_python("onnx_runtime.py", "--epochs", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the logits are the runtime's own memory: True" in done.stdout
    assert float(re.search(r"accuracy (\S+)%", done.stdout)[1]) > 90
