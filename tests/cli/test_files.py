"""Files that the command line reads: formats, the memory that they take, and what it says of those
that it cannot use."""

import json
import subprocess
import sys
from itertools import pairwise

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import zarr

from crossent.cli import main
from crossent.cli._files import LISTED, open_array

MEBIBYTE = 2**20
CLASSES = 2048


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments):
    """The error of a run that is refused: one line."""
    assert main(["evaluate", *map(str, arguments)]) == 1
    found = capsys.readouterr().err
    assert found.startswith("crossent: error: ")
    assert found.count("\n") == 1
    return found


# Memory

SCRIPT = """
import sys
from crossent.cli import main

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

def evaluated(name):
    return main(["evaluate", name, name.split(".")[0] + "_y.npy", "--batch-rows", "512", "--json",
                 *sys.argv[2:]])

name = sys.argv[1]
evaluated("small." + name.split(".")[1])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
assert evaluated(name) == 0
print(resident("VmHWM") - before)
"""


def write_npy(name, logits):
    np.save(name, logits.astype(ml_dtypes.bfloat16))


def write_safetensors(name, logits):
    safetensors.numpy.save_file({"logits": logits}, name)


def write_parquet(name, logits):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    pq.write_table(pa.table({"logits": lists}), name, use_dictionary=False)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is resident")
@pytest.mark.parametrize(
    "write, rows, options",
    [
        (write_npy, 40_000, ["--dtype", "bfloat16"]),
        (write_safetensors, 20_000, []),
        (write_parquet, 20_000, []),
    ],
    ids=["npy", "safetensors", "parquet"],
)
def test_a_file_takes_a_slices_memory(rng, write, rows, options):
    """160 MiB of logits, of which 2 or 4 MiB are wanted at a time."""
    suffix = write.__name__.removeprefix("write_")
    part = rng.standard_normal((500, CLASSES)).astype(np.float32)
    for name, n in (("small", 1000), ("large", rows)):
        write(f"{name}.{suffix}", np.tile(part, (n // len(part), 1)))
        np.save(f"{name}_y.npy", np.zeros(n, np.uint8))
    command = [sys.executable, "-c", SCRIPT, f"large.{suffix}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    small, large, added = map(json.loads, done.stdout.splitlines())
    assert large["rows"] == rows
    assert large["cross_entropy"] == small["cross_entropy"]
    assert added < 80 * MEBIBYTE, f"{added / MEBIBYTE:.1f} MiB"


def test_a_parquet_column_in_any_steps(rng):
    logits = rng.standard_normal((900, 6)).astype(np.float32)
    write_parquet("x.parquet", logits)
    source = open_array("x.parquet")
    bounds = [0, 1, 300, 301, 870, 900]
    parts = [source[a:b] for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), logits)
    assert np.array_equal(source[50:60], logits[50:60])


# Packages that are not there


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors"])
def test_bfloat16_without_its_package(name):
    logits = np.zeros((3, 4), ml_dtypes.bfloat16)
    np.save("x.npy", logits)
    safetensors.numpy.save_file({"logits": logits}, "x.safetensors")
    np.save("y.npy", np.zeros(3, int))
    script = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "from crossent.cli import main\n"
        f"sys.exit(main(['evaluate', '{name}', 'y.npy', '--dtype', 'bfloat16']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == (
        "crossent: error: ml_dtypes is not installed: pip install 'crossent[eval]'\n"
    )


# Arrays within files


def test_arrays_in_groups_of_zarr(rng, capsys):
    logits = rng.standard_normal((9, 3))
    np.save("y.npy", np.zeros(9, int))
    deep = zarr.open_group("deep.zarr", mode="w")
    inner = deep.create_group("run").create_group("last")
    inner.create_array("logits", shape=logits.shape, dtype=logits.dtype)[:] = logits
    assert main(["evaluate", "deep.zarr", "y.npy"]) == 0, "the only array"
    capsys.readouterr()
    deep["run"].create_array("other", shape=(2, 2), dtype="f4")
    message = refused(capsys, "deep.zarr", "y.npy")
    assert "2 arrays: ask for deep.zarr:KEY, KEY one of run/last/logits, run/other" in message
    assert main(["evaluate", "deep.zarr:run/last/logits", "y.npy"]) == 0


def test_files_without_arrays(capsys):
    np.save("y.npy", np.zeros(9, int))
    np.savez("none.npz")
    zarr.open_group("none.zarr", mode="w")
    safetensors.numpy.save_file({}, "none.safetensors")
    for name in ("none.npz", "none.zarr", "none.safetensors", "none.npz:x"):
        path = name.removesuffix(":x")
        assert f"{path} has no arrays: save one in it" in refused(capsys, name, "y.npy")
    np.savez("many.npz", **{f"x{i:02}": np.zeros(1) for i in range(LISTED + 1)})
    assert refused(capsys, "many.npz", "y.npy").endswith(f" x{LISTED - 1:02}, ...\n")


# What cannot be used, and what to do about it


def test_files_that_are_cut_off(rng, folder, capsys):
    logits = rng.standard_normal((50, 4))
    np.save("x.npy", logits)
    np.save("y.npy", np.zeros(50, int))
    safetensors.numpy.save_file({"logits": logits}, "x.safetensors")
    for name in ("x.npy", "x.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1])
        says = f"it says that it has {len(whole)} bytes, and has {len(whole) - 1}; write it again"
        assert f"{name} is cut off: {says}" in refused(capsys, name, "y.npy")
        (folder / name).write_bytes(whole[:20])
        assert "write it again" in refused(capsys, name, "y.npy")


@pytest.mark.parametrize(
    "held, message",
    [
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "convert it to F32"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "not as long as its shape says"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}, "not as long as its shape says"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "is cut off"),
        ({"dtype": "F32"}, "cannot be read"),
        ("F32", "cannot be read"),
    ],
)
def test_safetensors_that_are_none(folder, capsys, held, message):
    header = json.dumps({"x": held}).encode()
    (folder / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert message in refused(capsys, "x.safetensors", "x.safetensors")


def test_types_that_do_not_fit(rng, capsys):
    np.save("x.npy", rng.standard_normal((9, 3)))
    np.save("y.npy", np.zeros(9, int))
    np.save("integers.npy", np.zeros((9, 3), int))
    np.save("floats.npy", np.zeros(9))
    message = refused(capsys, "integers.npy", "y.npy")
    assert "floating-point numbers, and holds int64: save it as float32" in message
    message = refused(capsys, "x.npy", "y.npy", "--baseline", "integers.npy")
    assert "integers.npy must hold floating-point" in message
    message = refused(capsys, "x.npy", "floats.npy")
    assert "target classes, which are integers, and holds float64: save it as int64" in message
    assert "give it second" in refused(capsys, "y.npy", "x.npy")
    message = refused(capsys, "x.npy", "y.npy", "--group", "floats.npy")
    assert "--group must be integers or strings, got float64: save numbers" in message
    np.save("mask.npy", np.ones(3))
    message = refused(capsys, "x.npy", "y.npy", "--class-mask", "mask.npy")
    assert "--class-mask must be" in message
    assert "save it with astype(bool)" in message
    message = refused(capsys, "x.npy", "y.npy", "--kind", "log_probabilities")
    assert "--kind logits" in message
    np.save("y.npy", np.full(9, 3))
    assert "TARGETS[0] = 3 is out of range for 3 classes; --ignore-index" in refused(
        capsys, "x.npy", "y.npy"
    )


def test_inputs_are_told_apart_only_for_a_state(rng, monkeypatch, capsys):
    """Which reads them, and every file of a Zarr array."""
    np.save("x.npy", rng.standard_normal((9, 3)))
    np.save("y.npy", np.zeros(9, int))
    seen = []
    monkeypatch.setattr(
        "crossent.cli._files.digest", lambda path: seen.append(path.name) or "digest"
    )
    assert main(["evaluate", "x.npy", "y.npy"]) == 0
    assert seen == []
    assert main(["evaluate", "x.npy", "y.npy", "--resume", "s.json"]) == 0
    assert seen == ["x.npy", "y.npy"]
