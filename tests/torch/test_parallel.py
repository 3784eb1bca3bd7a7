"""A vocabulary spread over processes: real ones, over gloo."""

import math
import tempfile
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import by_formulas
from options import cross_entropy as reference_of_options
from reference import GRAD_BAR, LOSS_BAR, assert_within, cross_entropy, ulp

from crossent import torch as ct
from crossent.torch import _ops, _parallel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAYS = ("whole rows", "fused") if _ops.HAS_TRITON else ("whole rows",)
"""By the kernels of whole rows, and by those of slices: without a GPU, in Triton's interpreter."""
SIZES = {
    ("whole rows", 2): [5, 1200],
    ("whole rows", 3): [1, 30, 7],
    ("fused", 2): [5, 20],
    ("fused", 3): [1, 30, 7],
}
"""Of the slices, by how many processes there are."""


def problems(way, ranks):
    """Names, logits, targets of 8 rows, and options."""
    g = torch.Generator().manual_seed(5)

    def normal(classes, scale=3.0):
        return torch.randn(8, classes, generator=g, dtype=torch.float64) * scale

    def targets(classes):
        return torch.randint(0, classes, (8,), generator=g)

    classes = sum(SIZES[way, ranks])
    reductions = ("mean", "sum", "none") if way == "whole rows" else ("none",)
    for kind, scale in (("usual", 3.0), ("confident", 60.0), ("large", 1e4)):
        x = normal(classes, scale)
        for reduction in reductions:
            yield f"{kind} {reduction}", x, targets(classes), {"reduction": reduction}
    x, y = normal(classes, 20.0), normal(classes, 20.0).argmax(1)
    yield "right", x, x.argmax(1), {"reduction": "none"}
    yield "tied", torch.ones_like(x), y, {"reduction": "none"}
    ignoring = y.clone()
    ignoring[2] = ignoring[5] = -100
    yield "ignored", x, ignoring, {}
    yield "smoothed", x / 10, ignoring, {"label_smoothing": 0.1}
    yield "almost smoothed", x / 10, y, {"label_smoothing": 0.99, "reduction": "none"}
    yield "z-loss", x / 10, ignoring, {"z_loss": 0.05, "label_smoothing": 0.2}
    if way == "fused":
        return  # the rest is not of the kernels, and an interpreter takes its time
    yield "smoothed whole", x / 10, y, {"label_smoothing": 1.0, "reduction": "sum"}
    yield "all ignored", x, torch.full((8,), -100), {"empty": 0.25}
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0])
    yield "weighted", x, y, {"sample_weight": weight}
    yield "divided", x, y, {"denominator": 3.0}


def by_slices(ranks):
    """From here on by the fused kernels; gloo carries what the host has."""
    if DEVICE == "cpu":
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of infinities
        _parallel._fused = lambda x: True
    if ranks == 2:
        # Programs of one row, which has several blocks.
        kernels = _ops.triton()
        kernels.LOSS_BLOCK = kernels.GRAD_BLOCK = kernels.TILE = 16
    gather = _parallel._each_rank
    _parallel._each_rank = lambda x, group: gather(x.cpu(), group).to(x.device)


def run(rank, ranks, folder, dtype):
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    answers = {}
    for way in WAYS:
        device = DEVICE if way == "fused" else "cpu"
        if way == "fused":
            by_slices(ranks)
        bounds = np.cumsum([0, *SIZES[way, ranks]])
        mine = slice(bounds[rank], bounds[rank + 1])
        for name, x, y, options in problems(way, ranks):
            shard = x.to(dtype)[:, mine].contiguous().to(device).requires_grad_()
            y = y.to(device)
            options = {k: v.to(device) if torch.is_tensor(v) else v for k, v in options.items()}
            loss = ct.vocab_parallel_cross_entropy(shard, y, **options)
            upstream = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype).to(device)
            loss.backward(upstream.reshape(loss.shape) if loss.ndim else upstream[0])
            if way == "whole rows":
                with torch.no_grad():
                    again = ct.vocab_parallel_cross_entropy(shard, y, **options)
                assert torch.equal(again, loss) or bool(again.isnan().all())
            answers[way, name] = (loss.detach().cpu(), shard.grad.cpu())
        answers[way, "edges"] = edges(int(bounds[-1]), mine, dtype, device)
        if way == "fused":
            nothing_is_checked(bounds[rank + 1] - bounds[rank], device)
        else:
            refuses(rank, bounds)
    torch.save(answers, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


INF, NAN = math.inf, math.nan
# Values of the first class, the last, and the others; the target is the first.
EDGES = [
    (INF, 0, 0), (0, INF, 0), (INF, INF, 0), (-INF, 0, 0), (0, -INF, -INF), (0, 0, -INF),
    (NAN, 0, 0), (0, NAN, 0), (-INF, -INF, -INF),
]  # fmt: skip


def edge_rows(classes):
    x = torch.zeros(len(EDGES), classes)
    for row, (first, last, others) in zip(x, EDGES, strict=True):
        row[:] = others
        row[0], row[-1] = first, last
    return x


def edges(classes, mine, dtype, device):
    shard = edge_rows(classes).to(dtype)[:, mine].contiguous().to(device).requires_grad_()
    target = torch.zeros(len(EDGES), dtype=torch.int8, device=device)
    loss = ct.vocab_parallel_cross_entropy(shard, target, reduction="none")
    loss.sum().backward()
    return loss.detach().cpu(), shard.grad.cpu()


def nothing_is_checked(classes, device):
    """What is refused on the CPU, but for what shapes tell; and what the gradient refuses."""
    x = torch.zeros(3, int(classes), device=device, requires_grad=True)
    y = torch.tensor([0, 9999, -3], device=device)
    loss = ct.vocab_parallel_cross_entropy(x, y, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
    assert loss.isnan().tolist() == [False, True, True]
    assert grad.isnan().all(1).tolist() == [False, True, True]
    loss[0].backward()
    assert torch.equal(x.grad[0], grad[0])
    with pytest.raises(RuntimeError, match="no derivative of its gradient"):
        torch.autograd.grad(loss.sum(), x, create_graph=True)
    last = dist.get_rank() == dist.get_world_size() - 1
    with pytest.raises(ValueError, match="at least one class, has none at rank"):
        ct.vocab_parallel_cross_entropy(x[:, :0] if last else x, y)


def refuses(rank, bounds):
    classes = int(bounds[rank + 1] - bounds[rank])
    x, y = torch.zeros(2, classes, requires_grad=True), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(
        IndexError, match=rf"target\[1\] = 9999 is out of range for {bounds[-1]} cl"
    ):
        ct.vocab_parallel_cross_entropy(x, torch.tensor([0, 9999]))
    with pytest.raises(TypeError, match="target must be a tensor of integers"):
        ct.vocab_parallel_cross_entropy(x, y.bool())
    with pytest.raises(TypeError, match="logits_shard must be a floating-point tensor"):
        ct.vocab_parallel_cross_entropy(x.detach().int(), y)
    with pytest.raises(ValueError, match=r"target must have shape \(2,\)"):
        ct.vocab_parallel_cross_entropy(x, y[:1])
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\]"):
        ct.vocab_parallel_cross_entropy(x, y, label_smoothing=2.0)
    last = dist.get_world_size() - 1
    with pytest.raises(ValueError, match=f"at least one class, has none at rank {last}"):
        ct.vocab_parallel_cross_entropy(x[:, :0] if rank == last else x, y)
    with pytest.raises(ValueError, match="z_loss must be at least 0 and finite"):
        ct.vocab_parallel_cross_entropy(x, y, z_loss=math.nan)
    with pytest.raises(ValueError, match="target must be on the device of logits_shard, cpu"):
        ct.vocab_parallel_cross_entropy(x, y.to("meta"))
    far = torch.tensor([0, 2**64 - 100], dtype=torch.uint64)
    with pytest.raises(IndexError, match=rf"target\[1\] = {2**64 - 100} is out of range"):
        ct.vocab_parallel_cross_entropy(x, far)
    alone = dist.new_group([0])
    if rank > 0:
        with pytest.raises(ValueError, match="group must be one that this process is a member of"):
            ct.vocab_parallel_cross_entropy(x, y, alone)
    else:
        whole = ct.cross_entropy(x, y)
        torch.testing.assert_close(ct.vocab_parallel_cross_entropy(x, y, alone), whole)
    loss = ct.vocab_parallel_cross_entropy(x, y)
    (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert grad.shape == x.shape
    loss.backward()
    assert torch.equal(x.grad, grad)
    loss = ct.vocab_parallel_cross_entropy(x, y)
    with pytest.raises(RuntimeError, match="no derivative of its gradient"):
        torch.autograd.grad(loss, x, create_graph=True)
    # Pixels: the class axis need not be the last.
    pixels = torch.randn(2, classes, 3, generator=torch.Generator().manual_seed(1))
    target = torch.zeros(2, 3, dtype=torch.int64)
    rows = ct.vocab_parallel_cross_entropy(
        pixels.movedim(1, -1).reshape(6, classes), target.flatten(), reduction="none"
    )
    got = ct.vocab_parallel_cross_entropy(pixels, target, reduction="none")
    torch.testing.assert_close(got.flatten(), rows, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("ranks", [2, 3])
def test_shards_are_the_whole(ranks, dtype):
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (ranks, folder, dtype), ranks)
        answers = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(ranks)]
    for way in WAYS:
        for name, x, y, options in problems(way, ranks):
            losses = [found[way, name][0] for found in answers]
            grad = torch.cat([found[way, name][1] for found in answers], 1)
            assert all(torch.equal(loss, losses[0]) for loss in losses), (way, name)
            check(way, name, x.to(dtype), y, options, losses[0], grad)
        x = edge_rows(sum(SIZES[way, ranks])).to(dtype).requires_grad_()
        want = ct.cross_entropy(x, torch.zeros(len(EDGES), dtype=torch.int64), reduction="none")
        want.sum().backward()
        got = answers[0][way, "edges"][0]
        grad = torch.cat([found[way, "edges"][1] for found in answers], 1)
        torch.testing.assert_close(got, want.detach(), rtol=1e-6, atol=0, equal_nan=True)
        torch.testing.assert_close(grad, x.grad, equal_nan=True)


def check(way, name, x, y, options, loss, grad):
    """Against long double: within the bars of losses that one process computes."""
    kind = str(x.dtype).removeprefix("torch.")
    upstream = np.linspace(0.5, 2.0, max(loss.numel(), 1)).reshape(loss.shape)
    upstream = upstream.astype(np.float32 if loss.dtype == torch.float32 else np.float64)
    wide = x.double().numpy()
    given = {k: v.numpy() if torch.is_tensor(v) else v for k, v in options.items()}
    loss = loss.numpy()
    if {"reduction", "label_smoothing"} >= set(given):
        want = cross_entropy(wide, y.numpy(), grad_output=upstream, **given)
        answer, slope, scale = want.loss, want.grad, want.scale
        bar = LOSS_BAR[loss.dtype.name]
    else:
        answer, slope, _ = reference_of_options(wide, y.numpy(), grad_output=upstream, **given)
        # This reference subtracts logarithms.
        scale, bar = np.abs(upstream) + 0 * slope, 4.0
    assert_within(loss, answer, bar, what=f"{way}, {name}")
    # The share of float64 has the error of its logarithm.
    bar = 12.0 if kind == "float64" else GRAD_BAR[kind]
    # The interpreter cuts float32 off to bfloat16; a GPU rounds.
    bar += 0.5 if kind == "bfloat16" and way == "fused" and DEVICE == "cpu" else 0.0
    if kind == "bfloat16":
        rows = ml_dtypes.bfloat16
        got = grad.float().numpy().astype(rows)
        if way == "fused" and DEVICE == "cpu":
            # The interpreter makes something else of what is subnormal.
            got = np.where(np.abs(slope) < 2.0**-126, np.asarray(slope).astype(rows), got)
    else:
        got = grad.numpy()
    assert_within(got, slope, bar, scale, what=f"{way}, {name}, gradient")
    if way == "whole rows" and GRAD_BAR[kind] < 1.0:
        # Rounded once, also where terms cancel: what float32 loses of the larger comes before.
        slack = 2.0**-21 * np.asarray(scale) + GRAD_BAR[kind] * ulp(slope, got.dtype)
        assert (np.abs(got.astype(np.longdouble) - slope) <= slack).all(), (way, name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_by_formulas(dtype, monkeypatch):
    """Where there are no kernels: other devices, and bfloat16 without ml_dtypes."""
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    x = x.to(dtype).requires_grad_()
    y = torch.tensor([3, -100, 0, 8])
    options = {"label_smoothing": 0.1, "z_loss": 0.01}
    want = ct.cross_entropy(x, y, **options)
    (want_grad,) = torch.autograd.grad(want, x)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        by_formulas(monkeypatch)
        got = ct.vocab_parallel_cross_entropy(x, y, **options)
        (grad,) = torch.autograd.grad(got, x)
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grad, want_grad)
