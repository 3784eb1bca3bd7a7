"""Arrays that need not fit in memory: slices, memory maps, clusters."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch

from crossent.evaluation import Evaluation, evaluate, evaluate_dask
from crossent.evaluation._stream import sliceable

HERE = Path(__file__).parent
MEBIBYTE = 2**20


@pytest.fixture
def data(rng):
    logits = (4 * rng.standard_normal((500, 40))).astype(np.float32)
    return logits, rng.integers(0, 40, 500)


# Slices


@pytest.mark.parametrize("rows", [5, 7, 64, 499, 500, 1000, None])
def test_slices_do_not_show(data, rows, rng):
    logits, target = data
    named = {"baseline": logits + 1, "sample_weight": rng.random(500), "byte_count": target + 1}
    whole = Evaluation(worst=4)
    whole.update(logits, target, **named)
    assert evaluate(logits, target, batch_rows=rows, worst=4, **named) == whole


def test_what_slices_can_be_taken_of(data):
    logits, target = data
    whole = evaluate(logits, target, byte_count=1000)
    assert evaluate(logits.tolist(), target.tolist(), byte_count=1000, batch_rows=99) != whole
    assert evaluate(logits.astype(float), target, byte_count=1000).rows == 500
    cube = logits.reshape(50, 10, 40)
    assert evaluate(cube, target.reshape(50, 10), axis=-1, batch_rows=3, byte_count=1000) == whole
    mask = np.ones(logits.shape, bool)
    mask[3, :39] = target[3] != np.arange(39)
    mask[3, target[3]] = True
    masked = evaluate(logits, target, class_mask=mask, batch_rows=2)
    assert masked == evaluate(logits, target, class_mask=mask)
    assert evaluate(np.zeros((0, 3), np.float32), np.zeros(0, int)).classes == 3


def test_tensors_and_tables(data):
    """What `np.asarray` takes, at once; no slice of it goes by label."""
    logits, target = data
    weight = np.linspace(0, 1, 500)
    want = evaluate(logits, target, sample_weight=weight, baseline=logits)
    backwards = np.arange(500.0)[::-1]
    for made in (
        lambda array: torch.from_numpy(array),
        lambda array: pd.DataFrame(array) if array.ndim == 2 else pd.Series(array),
        lambda array: (
            pd.DataFrame(array, backwards) if array.ndim == 2 else pd.Series(array, backwards)
        ),
        lambda array: array.tolist() if array.ndim == 1 else array,
    ):
        x = made(logits)
        got = evaluate(x, made(target), sample_weight=made(weight), baseline=x, batch_rows=130)
        assert got == want
    for shared in (torch.from_numpy(logits), pd.DataFrame(logits, copy=False)):
        assert np.shares_memory(sliceable(shared), logits)


def test_what_is_read_slice_by_slice():
    class Lazy:
        shape, dtype = (500, 40), np.dtype(np.float32)

        def __init__(self):
            self.read = []

        def __getitem__(self, rows):
            self.read.append((rows.start, rows.stop))
            return np.zeros((rows.stop - rows.start, 40), np.float32)

        def __array__(self, *_, **__):
            raise AssertionError("it is read as a whole")

    lazy = Lazy()
    assert evaluate(lazy, np.zeros(500, int), batch_rows=200).rows == 500
    assert lazy.read == [(0, 200), (200, 400), (400, 500)]


def test_a_run_that_stops_goes_on(data):
    logits, target = data
    seen = []

    def stop(evaluation, position):
        seen.append((position, evaluation.to_dict()))
        if position >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(logits, target, batch_rows=50, worst=3, byte_count=9, on_batch=stop)
    position, kept = seen[-1]
    assert [place for place, _ in seen] == [50, 100, 150, 200]
    rest = evaluate(
        logits, target, into=Evaluation.from_dict(kept), start=position, batch_rows=33, byte_count=9
    )
    assert rest == evaluate(logits, target, worst=3, byte_count=9)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target": np.zeros(499, int)}, r"target must have the shape \(500,\), got \(499,\)"),
        ({"baseline": np.zeros((500, 39))}, "baseline must have the shape"),
        ({"byte_count": [1, 2]}, "byte_count must be a number or have"),
        ({"input": np.zeros(40, np.float32)}, "input must have at least two axes"),
        ({"axis": 0}, "axis must be one of the 2 axes of input but the first"),
        ({"batch_rows": 0}, "batch_rows must be at least 1"),
        ({"start": 501}, "start must be at most 500"),
        ({"into": Evaluation(), "bins": 3}, "into has its own arguments"),
    ],
)
def test_arguments_that_do_not_fit(data, change, message):
    given = {"input": data[0], "target": data[1], **change}
    with pytest.raises(ValueError, match=message):
        evaluate(given.pop("input"), given.pop("target"), **given)


def test_where_an_error_is(data):
    logits, target = data
    target[450] = 40
    with pytest.raises(IndexError, match=r"in the slice from 400 on: target\[50\] = 40"):
        evaluate(logits, target, batch_rows=100)


# Memory maps

SCRIPT = """
import sys
import numpy as np
from crossent.evaluation import evaluate

path, rows = sys.argv[1], 40 * 1024

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

def evaluated(rows):
    logits = np.load(path, mmap_mode="r")[:rows]
    if sys.argv[2] == "plain":
        logits = np.asarray(logits)
    return evaluate(logits, np.zeros(rows, np.uint8), batch_rows=1024)

evaluated(2048)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
got = evaluated(rows)
# Every row is the same.
row = np.load(path, mmap_mode="r")[0].astype(np.longdouble)
want = np.log(np.exp(row).sum()) - row[0]
assert got.rows == rows
assert abs(got.cross_entropy / want - 1) < 1e-6, (got, want)
print(resident("VmHWM") - before)
"""


@pytest.mark.parametrize("seen_as", ["map", "plain"])
def test_a_memory_map_takes_a_slices_memory(tmp_path, rng, seen_as):
    """320 MiB of logits, of which 8 MiB are in memory at a time."""
    path = tmp_path / "logits.npy"
    row = rng.standard_normal(2048).astype(np.float32)
    made = np.lib.format.open_memmap(path, "w+", np.float32, (40 * 1024, 2048))
    for start in range(0, len(made), 1024):
        made[start : start + 1024] = row
    del made
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), seen_as],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    added = int(done.stdout)
    assert added < 40 * MEBIBYTE, f"{added / MEBIBYTE:.1f} MiB"


def test_a_private_map_keeps_what_was_written(tmp_path, data):
    """Its pages exist nowhere else, and are not given back."""
    logits, target = data
    np.save(tmp_path / "x.npy", logits)
    private = np.load(tmp_path / "x.npy", mmap_mode="c")
    private[:] = 2 * logits
    want = evaluate(2 * logits, target)
    assert evaluate(private, target, batch_rows=10) == want
    assert np.array_equal(private, 2 * logits)
    assert evaluate(np.load(tmp_path / "x.npy", mmap_mode="r+"), target) == evaluate(logits, target)
    # A plain array over it is as private.
    plain = np.asarray(private)
    assert evaluate(plain, target, batch_rows=10) == want
    assert np.array_equal(private, 2 * logits)
    view = np.load(tmp_path / "x.npy", mmap_mode="r")[::-1, ::2]
    kept = evaluate(logits[::-1, ::2], target // 2)
    assert evaluate(view, target // 2, batch_rows=10) == kept


# Clusters


@pytest.fixture(scope="module")
def client():
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as made,
    ):
        yield made


def test_dask_has_the_same_bits(data, client, rng):
    logits, target = data
    named = {"baseline": logits + 1, "sample_weight": rng.random(500), "group": target % 3}
    whole = Evaluation(worst=4)
    whole.update(logits, target, class_mask=np.arange(40) >= 0, **named)
    for chunks in ((500, 40), (23, 40), ((100, 0, 250, 150), (11, 29))):
        spread = {name: da.from_array(each, chunks=60) for name, each in named.items()}
        got = evaluate_dask(
            da.from_array(logits, chunks=chunks), target, worst=4,
            class_mask=np.ones(40, bool), **spread
        )  # fmt: skip
        assert got == whole
    assert client.ncores(), "the cluster was there"


def explode_once(block, marker):
    """The first to come kills its worker, which can do nothing about it."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return block
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def test_a_lost_worker_is_made_good(data, client, tmp_path):
    logits, target = data
    before = {info["pid"] for info in client.run(pid_of).values()}
    marker = tmp_path / "exploded"
    chunks = da.from_array(logits, chunks=(25, 40))
    deadly = chunks.map_blocks(explode_once, str(marker), dtype=logits.dtype, meta=logits[:0])
    got = evaluate_dask(deadly, target, byte_count=77, per_class=True)
    assert marker.exists()
    client.wait_for_workers(3)
    after = {info["pid"] for info in client.run(pid_of).values()}
    assert len(before - after) == 1
    assert got == evaluate(logits, target, byte_count=77, per_class=True)


def pid_of():
    return {"pid": os.getpid()}


def test_dask_without_a_cluster(data):
    logits, target = data
    images = logits.reshape(5, 10, 10, 40).transpose(0, 3, 1, 2)
    lazy = evaluate_dask(
        da.from_array(images, chunks=(2, 7, 3, 10)), target.reshape(5, 10, 10), compute=False
    )
    got = lazy.compute(scheduler="threads")
    assert got == evaluate(images, target.reshape(5, 10, 10))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"input": np.zeros((500, 40))}, TypeError, "input must be a dask.array.Array"),
        ({"target": np.zeros(499, int)}, ValueError, "target must have the shape"),
        ({"class_mask": [True]}, ValueError, "class_mask must have the shape"),
        ({"bins": 0}, ValueError, "bins"),
        ({"axis": 0}, ValueError, "axis must be one of"),
    ],
)
def test_dask_arguments_that_do_not_fit(data, change, error, message):
    given = {"input": da.from_array(data[0], chunks=100), "target": data[1], **change}
    with pytest.raises(error, match=message):
        evaluate_dask(given.pop("input"), given.pop("target"), **given)


def test_dask_that_is_not_there():
    script = (
        "import sys; sys.modules['dask'] = None\n"
        "import crossent.evaluation as e\n"
        "e.evaluate_dask(None, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "dask is not installed: pip install 'crossent[dask]'" in done.stderr
