"""What the command line writes: states for their own inputs, files, errors of one line."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from crossent.cli import main
from crossent.evaluation import Evaluation, evaluate

CROSSENT = [sys.executable, "-m", "crossent"]
COMMAND = ["evaluate", "x.npy", "y.npy"]


@pytest.fixture
def data(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    logits, target = rng.standard_normal((60, 5)), rng.integers(0, 5, 60)
    np.save("x.npy", logits)
    np.save("y.npy", target)
    np.save("w.npy", rng.uniform(0, 3, 60))
    np.save("g.npy", rng.integers(0, 3, 60))
    np.save("mask.npy", np.ones(5, bool))
    np.save("bytes.npy", rng.integers(1, 9, 60))
    return logits, target


def told(capsys, *arguments):
    """The error of a run that is refused: one line."""
    assert main([*COMMAND, *map(str, arguments)]) == 1
    found = capsys.readouterr().err
    assert found.startswith("crossent: error: ")
    assert found.count("\n") == 1
    return found


@pytest.mark.parametrize(
    "option, file, name",
    [
        ("--sample-weight", "w.npy", "sample-weight file"),
        ("--group", "g.npy", "group file"),
        ("--baseline", "x.npy", "baseline file"),
        ("--class-mask", "mask.npy", "class-mask file"),
        ("--bytes", "bytes.npy", "bytes file"),
    ],
)
def test_a_state_of_a_run_with_more_inputs(data, capsys, option, file, name):
    assert main([*COMMAND, "--resume", "s.json", option, file]) == 0
    assert f"{name} differs" in told(capsys, "--resume", "s.json")
    os.unlink("s.json")
    assert main([*COMMAND, "--resume", "s.json"]) == 0
    assert f"{name} differs" in told(capsys, "--resume", "s.json", option, file)


def test_a_report_sets_options_of_the_state(data, capsys):
    assert main([*COMMAND, "--resume", "s.json"]) == 0
    found = told(capsys, "--resume", "s.json", "--report", "r.html")
    assert "per_class differs (--report sets it, too)" in found


@pytest.mark.parametrize("position", ["abc", None, -1, 1.5, True])
def test_a_state_with_no_position(data, capsys, position):
    assert main([*COMMAND, "--resume", "s.json"]) == 0
    with open("s.json") as file:
        state = json.load(file)
    with open("s.json", "w") as file:
        json.dump({**state, "position": position}, file)
    assert "s.json is no state of an evaluation: position is" in told(capsys, "--resume", "s.json")


def test_bytes_of_all_are_not_weighed(data, capsys):
    found = told(capsys, "--bytes", 9, "--sample-weight", "w.npy", "--batch-rows", 7)
    assert "--bytes must be a file" in found
    assert "slice" not in found


def test_bytes_of_no_rows_are_added_once(data, capsys):
    np.save("x.npy", np.zeros((0, 5)))
    np.save("y.npy", np.zeros(0, np.int64))
    for _ in range(3):
        assert main([*COMMAND, "--bytes", "100", "--resume", "s.json", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["bytes"] == 100


def test_what_came_before_a_bad_target_is_kept(data, capsys):
    logits, target = data
    target[55] = 77
    np.save("y.npy", target)
    found = told(capsys, "--resume", "s.json", "--batch-rows", 10)
    assert "s.json keeps the 50 before" in found
    with open("s.json") as file:
        state = json.load(file)
    assert Evaluation.from_dict(state["evaluation"]) == evaluate(logits[:50], target[:50])
    assert state["position"] == 50
    # Nothing came after the state that is there.
    before = os.stat("s.json").st_mtime_ns
    assert "keeps" not in told(capsys, "--resume", "s.json", "--batch-rows", 10)
    assert os.stat("s.json").st_mtime_ns == before


def test_outputs_replace_no_input(data, capsys):
    before = Path("x.npy").read_bytes()
    os.link("x.npy", "hard.html")
    os.symlink("x.npy", "soft.html")
    for report in ("x.npy", "./x.npy", "hard.html", "soft.html"):
        assert "would replace an input, x.npy" in told(capsys, "--report", report)
    assert "would replace an input, y.npy" in told(capsys, "--resume", "y.npy")
    found = told(capsys, "--resume", "s.json", "--report", "./s.json")
    assert "would replace the state" in found
    assert Path("x.npy").read_bytes() == before


def test_outputs_to_links_pipes_and_folders(data, capsys):
    os.mkdir("folder")
    for option in ("--report", "--resume"):
        assert f"{option} folder cannot be written: it is a directory" in told(
            capsys, option, "folder"
        )
    os.symlink("loop", "loop")
    main([*COMMAND, "--report", "loop"])  # What comes of it depends on the system; no traceback.
    assert "--resume /dev/null cannot hold a state" in told(capsys, "--resume", "/dev/null")
    os.symlink("folder/r.html", "link.html")
    assert main([*COMMAND, "--report", "link.html"]) == 0
    assert os.path.islink("link.html")
    page = Path("folder/r.html").read_text()
    assert page.startswith("<!doctype html>")

    os.mkfifo("pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    assert main([*COMMAND, "--report", "pipe"]) == 0
    reader.join(60)
    assert read == [page]


def test_a_file_is_closed_before_it_takes_its_place(data, monkeypatch):
    """Windows moves none that is open."""
    made, moved = [], []
    real_file, real_replace = tempfile.NamedTemporaryFile, os.replace

    def create(*arguments, **options):
        made.append(real_file(*arguments, **options))
        return made[-1]

    def replace(source, target):
        assert all(file.closed for file in made)
        moved.append(os.path.basename(target))
        real_replace(source, target)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", create)
    monkeypatch.setattr(os, "replace", replace)
    assert main([*COMMAND, "--resume", "s.json", "--report", "r.html"]) == 0
    assert moved == ["s.json", "r.html"]
    assert len(made) == 2

    def fail(source, target):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    assert main([*COMMAND, "--report", "r.html"]) == 1
    assert not list(Path().glob(".r.html.*"))


def test_results_are_shown_where_files_cannot_be_written(data, capsys, monkeypatch):
    """/dev/full is a disk without room."""
    os.symlink("/dev/full", "r.html")
    assert main([*COMMAND, "--report", "r.html"]) == 1
    shown = capsys.readouterr()
    assert "cross-entropy" in shown.out
    assert "No space left on device" in shown.err


def test_interrupted_with_no_reader(data, monkeypatch, tmp_path):
    """`crossent evaluate ... | tee log`: Ctrl-C ends the reader, too."""
    script = (
        "import os, signal, sys\n"
        "from crossent.cli import _evaluate\n"
        "from crossent.cli._main import main\n"
        "after = _evaluate.Walk._after\n"
        "def stop(self, evaluation, position):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    after(self, evaluation, position)\n"
        "_evaluate.Walk._after = stop\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for resume in ([], ["--resume", "s.json"]):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", script, *COMMAND, "--batch-rows", "9", *resume]
        with subprocess.Popen(command, **pipes) as process:
            process.stdout.close()
            assert process.wait(60) == 130
            assert "go on with: crossent evaluate" in process.stderr.read()
        made = resume[1:] or [path.name for path in tmp_path.glob("crossent-*.json")]
        with open(made[0]) as file:
            assert json.load(file)["position"] == 9


def test_too_much_memory(data, capsys):
    assert "out of memory" in told(capsys, "--bins", 10**15)
    told(capsys, "--bins", 10**30)


def test_closed_output(data):
    for command in (["doctor"], COMMAND):
        line = 'exec "$@" >&-'
        done = subprocess.run(
            ["sh", "-c", line, "sh", *CROSSENT, *command], stderr=subprocess.PIPE, text=True
        )
        assert done.returncode == 1
        assert done.stderr == (
            "crossent: error: standard output is closed: there is no place for results\n"
        )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *CROSSENT, "evaluate", "no.npy", "y.npy"],
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_full_disk_for_the_output(data):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*CROSSENT, *COMMAND], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "crossent: error: [Errno 28] No space left on device\n"


def test_huge_weights_are_no_warning(data):
    np.save("x.npy", np.array([[0.0, 1000.0]] * 60))
    np.save("y.npy", np.zeros(60, np.int64))
    np.save("w.npy", np.full(60, 1e307))
    command = [*CROSSENT, *COMMAND, "--sample-weight", "w.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
