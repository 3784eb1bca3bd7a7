"""The command line as a user meets it: processes, files, signals, exit codes."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import xgboost
import zarr

from crossent.cli import main
from crossent.cli._doctor import cgroup_cpus, cgroup_memory
from crossent.cli._progress import Plain, clock
from crossent.evaluation import Evaluation, evaluate

CROSSENT = [sys.executable, "-m", "crossent"]


@pytest.fixture
def data(rng):
    logits = (3 * rng.standard_normal((700, 20))).astype(np.float32)
    target = rng.integers(0, 20, 700)
    target[:5] = -100
    return logits, target


@pytest.fixture
def files(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", data[0])
    np.save("targets.npy", data[1])
    return tmp_path


def crossent(*arguments, **options):
    return subprocess.run(
        [*CROSSENT, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


def answer(capsys, *arguments):
    """What `crossent evaluate --json` prints, in this process: starting one takes longer."""
    code = main(["evaluate", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def agree(found, evaluation):
    want = evaluation.summary()
    for name in ("rows", "ignored_rows", "cross_entropy", "perplexity", "accuracy", "top5",
                 "entropy", "expected_calibration_error"):  # fmt: skip
        assert found[name] == want[name], name


# Files


def write_npy(logits, target):
    np.save("x.npy", logits)
    np.save("y.npy", target)
    return "x.npy", "y.npy"


def write_npz(logits, target):
    np.savez("both.npz", logits=logits, target=target)
    return "both.npz:logits", "both.npz:target"


def write_packed_npz(logits, target):
    np.savez_compressed("both.npz", logits=logits, target=target)
    return "both.npz:logits", "both.npz:target"


def write_safetensors(logits, target):
    safetensors.numpy.save_file({"logits": logits, "y": target}, "both.safetensors")
    return "both.safetensors:logits", "both.safetensors:y"


def write_zarr(logits, target):
    zarr.save("both.zarr", logits=logits, y=target)
    return "both.zarr:logits", "both.zarr:y"


def write_one_zarr(logits, target):
    made = zarr.create(logits.shape, chunks=(50, 7), dtype=logits.dtype, store="x.zarr")
    made[:] = logits
    np.save("y.npy", target)
    return "x.zarr", "y.npy"


def write_parquet(logits, target, kind=None):
    flat = pa.array(logits.ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    if kind is not None:
        lists = lists.cast(pa.list_(flat.type))
    table = pa.table(
        {"logits": lists, "y": target, "name": [f"part {i % 3}" for i in range(len(target))]}
    )
    pq.write_table(table, "both.parquet", row_group_size=150)
    return "both.parquet:logits", "both.parquet:y"


def write_lists_of_parquet(logits, target):
    return write_parquet(logits, target, "list")


WRITERS = [write_npy, write_npz, write_packed_npz, write_safetensors, write_zarr, write_one_zarr,
           write_parquet, write_lists_of_parquet]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("rows", [None, 111])
def test_every_kind_of_file(write, rows, data, files, capsys):
    sources = write(*data)
    options = [] if rows is None else ["--batch-rows", rows]
    agree(answer(capsys, *sources, *options), evaluate(*data))


@pytest.mark.parametrize("write", [write_npy, write_npz, write_safetensors, write_parquet])
def test_half_precision(write, data, files, capsys):
    logits = data[0].astype(np.float16)
    agree(answer(capsys, *write(logits, data[1])), evaluate(logits, data[1]))


def test_bfloat16(data, files, capsys):
    logits = data[0].astype(ml_dtypes.bfloat16)
    want = evaluate(logits, data[1])
    agree(answer(capsys, *write_safetensors(logits, data[1])), want)
    sources = write_npy(logits, data[1])
    assert main(["evaluate", *sources]) == 1
    assert "--dtype bfloat16" in capsys.readouterr().err
    agree(answer(capsys, *sources, "--dtype", "bfloat16"), want)


def test_sequences(data, files, capsys):
    logits, target = data[0].reshape(7, 100, 20), data[1].reshape(7, 100)
    sources = write_npy(logits, target)
    assert main(["evaluate", *sources]) == 1
    assert "with --axis -1 they fit" in capsys.readouterr().err
    agree(answer(capsys, *sources, "--axis", "-1", "--batch-rows", 2), evaluate(*data))


def test_options(data, files, rng, capsys):
    logits, target = data
    weight, mask = rng.random(700), np.ones(20, bool)
    np.save("weight.npy", weight)
    np.save("mask.npy", mask)
    np.save("base.npy", logits + rng.standard_normal(logits.shape).astype(np.float32))
    np.save("bytes.npy", np.full(700, 3))
    write_parquet(logits, target)
    found = answer(
        capsys, "logits.npy", "targets.npy", "--baseline", "base.npy", "--sample-weight",
        "weight.npy", "--class-mask", "mask.npy", "--group", "both.parquet:name", "--bytes",
        "bytes.npy", "--temperature", 1.5, "--softcap", 30, "--top-k", "3,7", "--bins", 9,
        "--per-class", "--worst", 6, "--threads", 2, "--ignore-index", -100,
    )  # fmt: skip
    want = evaluate(
        logits, target, baseline=np.load("base.npy"), sample_weight=weight, class_mask=mask[None],
        byte_count=np.full(700, 3), group=np.array([f"part {i % 3}" for i in range(700)]),
        temperature=1.5, softcap=30, top_k=(3, 7), bins=9, per_class=True, worst=6,
    )  # fmt: skip
    for name, value in want.summary().items():
        assert found[name] == value, name
    assert found["reliability"]["rows"] == want.reliability()["rows"].tolist()
    assert found["by_class"]["cross_entropy"] == want.by_class()["cross_entropy"].tolist()
    assert found["by_group"]["label"] == ["part 0", "part 1", "part 2"]
    diagram = want.reliability(group="part 1")
    assert found["by_group"]["reliability"][1]["rows"] == diagram["rows"].tolist()
    assert [t["row"] for t in found["worst_tokens"]] == [t.row for t in want.worst_tokens()]


def test_table(files, data, capsys):
    assert main(["evaluate", "logits.npy", "targets.npy", "--bytes", "1000"]) == 0
    text = capsys.readouterr().out
    want = evaluate(*data, byte_count=1000)
    assert re.search(rf"^cross-entropy +{want.cross_entropy:.6g} nats$", text, re.M)
    assert re.search(rf"^bits per byte +{want.bits_per_byte:.6g}$", text, re.M)
    assert re.search(r"^rows ignored +5$", text, re.M)
    main(["evaluate", "logits.npy", "targets.npy", "--bits", "--per-class", "--worst", "2"])
    text = capsys.readouterr().out
    assert re.search(rf"^cross-entropy +{want.bits:.6g} bits$", text, re.M)
    assert re.search(
        r"^ *class +rows +bits +perplexity +accuracy +top-5 +entropy +confidence$", text, re.M
    )
    np.save("group.npy", data[1] % 2)
    np.save("bytes.npy", np.full(700, 2))
    main(
        ["evaluate", "logits.npy", "targets.npy", "--baseline", "logits.npy", "--bytes",
         "bytes.npy", "--group", "group.npy"]
    )  # fmt: skip
    head = "group rows nats perplexity bits.per.byte accuracy top-5 entropy confidence "
    head += "calibration.error KL"
    assert re.search(rf"^ *{head.replace(' ', ' +')}$", capsys.readouterr().out, re.M)
    assert re.search(r"^ *row +target +log-prob \(bits\) +rank +entropy \(bits\)$", text, re.M)
    token = evaluate(*data, worst=1).worst_tokens()[0]
    numbers = [rf"{x / np.log(2):.6g}" for x in (token.log_prob, token.entropy)]
    assert re.search(
        rf"^ *{token.row} +{token.target} +{numbers[0]} +\d+ +{numbers[1]}$", text, re.M
    )


def test_json_has_no_numbers_that_json_has_not(files, data, capsys):
    logits, target = data
    logits[9, target[9]] = -np.inf
    found = answer(capsys, *write_npy(logits, target))
    assert found["perplexity"] == found["loss_quantiles"]["1"] == "Infinity"


# The report


class Page(HTMLParser):
    """Balanced tags, their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report(files, data, capsys):
    logits, target = data
    table = pa.table({"y": target, "name": np.where(target > 10, "<b>high</b>", "low")})
    pq.write_table(table, "y.parquet")
    done = main(
        ["evaluate", "logits.npy", "y.parquet:y", "--group", "y.parquet:name", "--report", "r.html"]
    )
    assert done == 0
    text = (files / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not [a for _, a in page.tags if {"src", "href"} & a.keys()]
    assert not re.search(r"https?:|url\(|@import|<script", text)
    assert "<b>high" not in text
    assert "<b>high</b>" in page.text
    want = evaluate(logits, target, worst=20, per_class=True)
    assert f"{want.cross_entropy:.6g} nats" in page.text
    for token in want.worst_tokens():
        assert f"<td>{token.row}</td><td>{token.target}</td><td>{token.log_prob:.6g}</td>" in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.S):
        ET.fromstring(drawing)
    bars = [a for tag, a in page.tags if tag == "rect" and a["class"] == "gap"]
    grouped = evaluate(logits, target, group=np.where(target > 10, "high", "low"))
    diagrams = [want.reliability(), *(grouped.reliability(group=g) for g in ("high", "low"))]
    assert len(bars) == sum(np.count_nonzero(each["rows"]) for each in diagrams)
    assert "Group <b>high</b>. Accuracy" in page.text
    rows = page.text.count(" rows")
    assert rows > len(bars)
    assert os.stat("r.html").st_mode & 0o777 == os.stat("logits.npy").st_mode & 0o777


# Errors, in one line


def refused(capsys, code, *arguments):
    assert main(list(map(str, arguments))) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("crossent: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_files_that_cannot_be_used(files, data, capsys):
    def error(*arguments):
        return refused(capsys, 1, "evaluate", *arguments)

    assert "none.npy does not exist" in error("none.npy", "targets.npy")
    (files / "x.bin").write_bytes(b"")
    assert "none of the formats .npy, " in error("x.bin", "targets.npy")
    (files / "bad.npy").write_bytes(b"nothing")
    assert "bad.npy cannot be read" in error("bad.npy", "targets.npy")
    (files / "bad.safetensors").write_bytes(b"\xff" * 30)
    assert "is no .safetensors file" in error("bad.safetensors:x", "targets.npy")
    (files / "bad.parquet").write_bytes(b"nothing")
    assert "bad.parquet cannot be read" in error("bad.parquet:x", "targets.npy")
    (files / "bad.npz").write_bytes(b"nothing")
    assert "bad.npz cannot be read" in error("bad.npz:x", "targets.npy")
    assert "leave :x out" in error("logits.npy:x", "targets.npy")
    both = write_npz(*data)
    assert "2 arrays: ask for both.npz:KEY, KEY one of logits, target" in error("both.npz", both[1])
    assert "no array other" in error("both.npz:other", both[1])
    write_parquet(*data)
    assert "no column other" in error("both.parquet:other", "targets.npy")
    np.save("short.npy", data[1][:9])
    assert "must have the shape (700,)" in error("logits.npy", "short.npy")
    assert "--baseline must have" in error("logits.npy", "targets.npy", "--baseline", "short.npy")
    assert "is not an axis" in error("logits.npy", "targets.npy", "--axis", 0)
    assert "has no rows of classes to be LOGITS" in error("targets.npy", "targets.npy")
    assert "temperature" in error("logits.npy", "targets.npy", "--temperature", 0)
    assert "folder does not exist" in error("logits.npy", "targets.npy", "--report", "no/r.html")
    assert not list(files.glob("crossent-*"))

    target = data[1].copy()
    target[650] = 20
    np.save("wrong.npy", target)
    message = error("logits.npy", "wrong.npy", "--batch-rows", 100)
    assert "in the slice from 600 on: TARGETS[50] = 20 is out of range for 20 classes" in message
    np.save("whole.npy", data[1].astype(float))
    assert "target" in error("logits.npy", "whole.npy")
    np.save("objects.npy", np.array([{}], dtype=object))
    assert "Python objects are not read" in error("objects.npy", "targets.npy")
    ragged = pa.table({"x": [[1.0], [1.0, 2.0]], "n": [0, None]})
    pq.write_table(ragged, "ragged.parquet")
    np.save("two.npy", np.zeros((2, 3)))
    for rows in (1, 2):
        assert "different lengths" in error("ragged.parquet:x", "ragged.parquet:n", "--batch-rows",
                                            rows)  # fmt: skip
        assert "nulls" in error("two.npy", "ragged.parquet:n", "--batch-rows", rows)


def test_a_cut_off_archive(files, data, capsys):
    x, y = write_packed_npz(*data)
    whole = (files / "both.npz").read_bytes()
    (files / "both.npz").write_bytes(whole[:2000] + bytes(100) + whole[2100:])
    assert "both.npz" in refused(capsys, 1, "evaluate", x, y)


def test_a_missing_package(files):
    script = (
        "import sys; sys.modules['pyarrow.parquet'] = None\n"
        "from crossent.cli import main\n"
        "sys.exit(main(['evaluate', 'x.parquet:x', 'targets.npy']))\n"
    )
    (files / "x.parquet").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 3
    assert (
        done.stderr == "crossent: error: pyarrow is not installed: pip install 'crossent[eval]'\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["evaluate"],
        ["evaluate", "x", "y", "--bins", "0"],
        ["evaluate", "x", "y", "--top-k", "a"],
        ["bench", "--shape", "3"],
        ["bench", "--shape", "3x1"],
        ["bench", "--shape", "3x4x5"],
        ["other"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: crossent" in capsys.readouterr().err


def test_help_says_how_it_ends():
    """And needs nothing but NumPy."""
    script = (
        "import sys\n"
        "from crossent.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'pyarrow', 'zarr', 'dask', 'tqdm', 'matplotlib',\n"
        "         'safetensors', 'asyncio', 'crossent.evaluation', 'crossent.cli._evaluate'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
    for code in ("0 ", "1 ", "2 ", "3 ", "130 ", "143 "):
        assert f"\n  {code}" in done.stdout


def test_a_reader_that_has_enough(files):
    command = [*CROSSENT, "evaluate", "logits.npy", "targets.npy"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


# Interrupted, and going on


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


SLOW = """
import os, sys, time
from crossent.cli import _evaluate
from crossent.cli._main import main

_evaluate.CHECKPOINT_SECONDS = 0
# The signal comes when the first slices are done, however fast the machine is.
after = _evaluate.Walk._after
def slowly(self, evaluation, position):
    after(self, evaluation, position)
    open("reached", "w").write(str(position))
    time.sleep(0.05)
_evaluate.Walk._after = slowly
sys.exit(main(sys.argv[1:]))
"""


def interrupted(files, number, *arguments):
    command = ["evaluate", "logits.npy", "targets.npy", "--batch-rows", "7", *arguments]
    reached = files / "reached"
    reached.unlink(missing_ok=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command], **pipes)
    wait_for(lambda: reached.exists() and int(reached.read_text() or 0) >= 21)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_and_resumed(files, data, number, code):
    extra = ["--json", "--worst", "5", "--bytes", "999"]
    ended, out, err = interrupted(files, number, "--resume", "state.json", *extra)
    assert ended == code, err
    part = json.loads(out)
    done = part["position"]
    assert part["complete"] is False
    assert 21 <= done < 700
    assert part["rows"] + part["ignored_rows"] == done
    want = evaluate(data[0][:done], data[1][:done])
    assert part["cross_entropy"] == want.cross_entropy
    assert f"interrupted: {done} of 700 are in the sums above" in err
    line = re.search("go on with: crossent (.*)", err)[1].split()
    again = crossent(*line)
    assert again.returncode == 0, again.stderr
    whole = crossent("evaluate", "logits.npy", "targets.npy", *extra)
    assert again.stdout == whole.stdout
    assert json.loads(whole.stdout)["complete"] is True
    # Once it is done it is not done again.
    assert crossent(*line).stdout == whole.stdout


def test_killed_and_resumed(files):
    """Nobody can do anything about SIGKILL but keep the state in time."""
    ended, out, _ = interrupted(files, signal.SIGKILL, "--resume", "state.json")
    assert (ended, out) == (-signal.SIGKILL, "")
    assert 0 < json.loads((files / "state.json").read_text())["position"] < 700
    command = ["evaluate", "logits.npy", "targets.npy"]
    again = crossent(*command, "--batch-rows", 7, "--resume", "state.json")
    assert again.stdout == crossent(*command).stdout


def test_interrupted_without_a_state(files, data):
    ended, out, err = interrupted(files, signal.SIGINT)
    assert ended == 130
    assert re.search(r"^rows +\d+$", out, re.M)
    line = re.search("go on with: crossent (.*)", err)[1].split()
    made = line[line.index("--resume") + 1]
    assert re.fullmatch(r"crossent-\w+\.json", made)
    again = crossent(*line)
    assert again.stdout == crossent("evaluate", "logits.npy", "targets.npy").stdout
    state = json.loads((files / made).read_text())
    assert Evaluation.from_dict(state["evaluation"]) == evaluate(*data)


def test_a_state_is_for_its_own_inputs(files, data, capsys):
    def run(code, *arguments):
        assert (
            main(["evaluate", "logits.npy", "targets.npy", "--resume", "s.json", *arguments])
            == code
        )
        return capsys.readouterr().err

    run(0)
    assert not list(files.glob(".s.json*")), "nothing half written is left"
    before = (files / "s.json").read_bytes()
    assert "s.json is of other inputs or options: bins differs" in run(1, "--bins", "3")
    changed = data[1].copy()
    changed[0] = 3
    np.save("targets.npy", changed)
    assert "s.json is of other inputs or options: targets file differs" in run(1)
    assert (files / "s.json").read_bytes() == before
    (files / "s.json").write_text(before.decode()[:-9])
    assert "s.json is no state of an evaluation" in run(1)
    state = json.loads(before)
    (files / "s.json").write_text(json.dumps({**state, "version": 9}))
    assert "s.json has version 9" in run(1)
    (files / "s.json").write_bytes(before)
    np.save("targets.npy", data[1])
    os.utime("targets.npy", ns=(1, 1))
    assert "targets file differs" in run(1)


def test_a_state_of_another_instruction_set(files, data, capsys):
    arguments = ["evaluate", "logits.npy", "targets.npy", "--resume", "s.json"]
    assert main(arguments) == 0
    state = json.loads((files / "s.json").read_text())
    (files / "s.json").write_text(json.dumps({**state, "simd": "other"}))
    assert main(arguments) == 0
    assert "last bits may differ" in capsys.readouterr().err


# The other commands, and what is shown meanwhile


def test_bench(capsys):
    arguments = ["bench", "--shape", "64x50", "--repeats", "1", "--peers"]
    assert main([*arguments, "numpy,torch,scipy,sklearn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (shape,) = found["shapes"]
    assert shape["shape"] == [64, 50]
    assert set(shape["loss"]) == {"floor", "crossent", "numpy", "torch", "scipy", "sklearn"}
    assert set(shape["gradient"]) == {"floor", "crossent", "numpy", "torch"}
    assert all(
        seconds > 0 for times in (shape["loss"], shape["gradient"]) for seconds in times.values()
    )
    assert main([*arguments, "none"]) == 0
    assert re.search(r"^ *crossent +\S+ [mn]?s +1\.00×", capsys.readouterr().out, re.M)
    assert "no other" in refused(capsys, 1, *arguments, "other")
    for large in ("99999999999x99999999999", "9999999x9999999"):
        message = refused(capsys, 1, "bench", "--shape", large)
        assert f"--shape {large} does not fit in memory: give a smaller one" in message


@pytest.mark.parametrize("command", [["bench"], ["evaluate", "logits.npy", "targets.npy"]])
def test_threads_that_cannot_be(files, capsys, command):
    for n in (1025, 10**9, 10**30):
        assert "error: --threads must " in refused(capsys, 1, *command, "--threads", n)


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["numpy"] == np.__version__
    assert found["packages"]["pyarrow"] == pa.__version__
    assert found["packages"]["xgboost"] == xgboost.__version__
    assert {"lightgbm", "catboost", "onnxruntime"} <= found["packages"].keys()
    assert found["right"] is True
    assert found["threads"] >= 1
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^loss of \[20, 0\] +2\.0611\d+e-09, right$", text, re.M)


@pytest.mark.parametrize("value, right", [("2", True), ("abc", False), ("0", False), ("", False)])
def test_doctor_says_what_is_ignored(monkeypatch, capsys, value, right):
    monkeypatch.setenv("CROSSENT_NUM_THREADS", value)
    assert main(["doctor"]) == 0
    line = re.search("^CROSSENT_NUM_THREADS +(.*)$", capsys.readouterr().out, re.M)[1]
    assert ("ignored: it must be a whole number" in line) is not right
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["environment_ignored"] == ([] if right else ["CROSSENT_NUM_THREADS"])


def write_all(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    "groups, files, cpus, memory",
    [
        ("0::/", {}, None, None),
        ("0::/", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        ("0::/", {"cpu.max": "150000 100000\n", "memory.max": "1048576\n"}, 1.5, 2**20),
        # A limit of those above holds, too; of a container, parts may be out of sight.
        (
            "0::/a/b",
            {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"},
            2.0,
            None,
        ),
        ("0::/out/of/sight", {"memory.max": "4096\n"}, None, 4096),
        # Version 1.
        (
            "4:memory:/\n3:cpu,cpuacct:/\n0::/",
            {
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": NO_LIMIT_V1,
            },
            None,
            None,
        ),
        (
            "4:memory:/job\n3:cpu,cpuacct:/job\n0::/",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "memory/job/memory.limit_in_bytes": NO_LIMIT_V1,
                "memory/memory.limit_in_bytes": "2097152\n",
            },
            0.5,
            2**21,
        ),
    ],
)
def test_limits_of_control_groups(tmp_path, groups, files, cpus, memory):
    write_all(tmp_path, {"groups": groups + "\n"})
    write_all(tmp_path / "root", files)
    places = tmp_path / "root", tmp_path / "groups"
    assert (cgroup_cpus(*places), cgroup_memory(*places)) == (cpus, memory)


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_bar_on_a_terminal(files, tqdm):
    """A pseudo-terminal as standard error."""
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    script = "" if tqdm else "import sys; sys.modules['tqdm'] = None\n"
    script += "import sys\nfrom crossent.cli import main\nsys.exit(main(sys.argv[1:]))"
    arguments = ["evaluate", "logits.npy", "targets.npy", "--batch-rows", "50"]
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.returncode == 0
    assert "700/700" in shown
    assert "100%" in shown


def test_the_plain_bar():
    class Out:
        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    out = Out()
    bar = Plain(100, 50, "rows", out)
    bar.update(50)
    bar.close()
    assert re.search(r"100% \|#{30}\| 100/100 rows, [\d,]+/s, 00:00 left", out.text)
    assert [clock(s) for s in (5, 65, 3700)] == ["00:05", "01:05", "1:01:40"]
