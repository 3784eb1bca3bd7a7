"""The kernels for torch tensors on a GPU, beside torch's and Liger's.

Times are medians of interleaved runs between events of the GPU, which is kept busy for a while when
the host begins a call: only a call that waits for the GPU, or takes the host longer than that, pays
for the host's time. The rate counts the bytes that must move, every input read once and every
output written once, over the time; its share is of what a large copy reaches. Peak memory is what a
call allocates beside its inputs. Answers are checked against float64 before anything is timed. What
writes its gradient over the logits has them restored before each run, which is not timed: gradients
of gradients are nearly equal, and no logits.

The module is loaded from its file: neither the package nor its extension need be installed. Where
they are, the losses of crossent.torch are timed as well, through autograd, from the call to the
gradient; the one over a sharded vocabulary in a group of one process.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

DEVICE = "cuda"
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TOKENS = (4096, 16384)
CLASSES = (32000, 128256, 262144)
# Compiling takes longer than everything else: torch.compile is for these sizes alone.
COMPILED = {(4096, 32000), (4096, 128256)}
OTHERS = (8192, 32000)
AUTOGRAD = (4096, 128256)
REPEATS, QUICK_REPEATS = 11, 5
WARM_UP = 2
# Cycles, of about a millisecond, that the host is ahead by.
HEAD_START = 2_000_000

Call = Callable[[], Any]


def load() -> Any:
    path = Path(__file__).parents[1] / "python" / "crossent" / "torch" / "_triton.py"
    spec = importlib.util.spec_from_file_location("crossent_torch_triton", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def liger() -> Any:
    try:
        from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction
    except ImportError:
        return None
    return LigerCrossEntropyFunction


def nothing() -> None:
    pass


def race(
    calls: dict[str, Call], repeats: int, restore: dict[str, Call] | None = None
) -> dict[str, tuple[float, int] | str]:
    """The median time in ms and the peak memory of each call, or why there is none. Before each run
    of a call comes what `restore` has for it."""
    before_run = {name: (restore or {}).get(name, nothing) for name in calls}
    found: dict[str, tuple[float, int] | str] = {}
    peaks: dict[str, int] = {}
    for name, call in calls.items():
        try:
            for _ in range(WARM_UP):
                before_run[name]()
                call()
            before_run[name]()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            torch.cuda.synchronize()
            peaks[name] = torch.cuda.max_memory_allocated() - before
        except torch.OutOfMemoryError:
            found[name] = "no room"
            torch.cuda.empty_cache()
        except Exception as error:  # a peer that fails is no reason to stop
            found[name] = f"failed: {type(error).__name__}"
            print(f"{name}: {error}", file=sys.stderr)
    times: dict[str, list[tuple[Any, Any]]] = {name: [] for name in peaks}
    for _ in range(repeats):
        for name, pairs in times.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before_run[name]()
            torch.cuda._sleep(HEAD_START)
            start.record()
            calls[name]()
            end.record()
            pairs.append((start, end))
    torch.cuda.synchronize()
    for name, pairs in times.items():
        found[name] = (median(start.elapsed_time(end) for start, end in pairs), peaks[name])
    return {name: found[name] for name in calls}


def copy_rate(repeats: int) -> float:
    """Bytes a second of a copy of 2 GiB, read and written."""
    source = torch.randn(1 << 29, device=DEVICE)
    target = torch.empty_like(source)
    result = race({"copy": lambda: target.copy_(source)}, repeats)["copy"]
    assert not isinstance(result, str)
    return float(2 * source.nbytes / (result[0] * 1e-3))


def show(
    what: str, shape: tuple[int, int], kind: str, needed: int, copy: float,
    results: dict[str, tuple[float, int] | str],
) -> None:  # fmt: skip
    for name, result in results.items():
        start = f"| {what} | {shape[0]} × {shape[1]} | {kind} | {name} |"
        if isinstance(result, str):
            print(f"{start} {result} | | | |", flush=True)
            continue
        ms, peak = result
        rate = needed / (ms * 1e-3)
        print(
            f"{start} {ms:.3f} | {rate / 1e9:.0f} | {rate / copy:.2f} | {peak / 2**20:.0f} |",
            flush=True,
        )


def backward(x: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]) -> Call:
    """The loss and its gradient by autograd, which keeps neither."""
    leaf = x.detach().requires_grad_()

    def call() -> None:
        torch.autograd.grad(loss(leaf), leaf)

    return call


def check(kernels: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    x, y = x[:32].clone(), y[:32]
    loss, grad = kernels.cross_entropy(x, y, reduction="none", grad=True)
    wide = x.double().requires_grad_()
    want = F.cross_entropy(wide, y, reduction="none")
    (slope,) = torch.autograd.grad(want.sum(), wide)
    torch.testing.assert_close(loss.double(), want.detach(), rtol=1e-6, atol=0)
    rtol = 1e-5 if x.dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(grad.double(), slope, rtol=rtol, atol=1e-30)


def cross_entropy(
    kernels: Any, shape: tuple[int, int], kind: str, copy: float, repeats: int
) -> None:
    n, classes = shape
    bytes_needed = n * classes * TYPES[kind].itemsize
    x = torch.empty(shape, dtype=TYPES[kind], device=DEVICE).normal_(0, 3)
    y = torch.randint(0, classes, (n,), device=DEVICE)
    check(kernels, x, y)
    compiled: Any = None
    if shape in COMPILED:
        torch._dynamo.reset()
        compiled = torch.compile(lambda a: F.cross_entropy(a, y), dynamic=False)
    peer = liger()

    calls: dict[str, Call] = {
        "crossent": lambda: kernels.cross_entropy(x, y),
        "torch": lambda: F.cross_entropy(x, y),
    }
    if compiled is not None:
        calls["torch.compile"] = lambda: compiled(x)
    show("loss", shape, kind, bytes_needed, copy, race(calls, repeats))

    own = x.clone()
    calls = {
        "crossent, in place": lambda: kernels.cross_entropy(own, y, inplace_grad=True),
        "crossent": lambda: kernels.cross_entropy(x, y, grad=True),
        "torch": backward(x, lambda a: F.cross_entropy(a, y)),
    }
    if compiled is not None:
        calls["torch.compile"] = backward(x, compiled)
    if peer is not None:
        # It writes its gradient over its input as well.
        leaf = own.detach().requires_grad_()
        calls["Liger, in place"] = lambda: torch.autograd.grad(peer.apply(leaf, y, None)[0], leaf)
    restore = {name: lambda: own.copy_(x) for name in calls if name.endswith("in place")}
    show("loss and gradient", shape, kind, 2 * bytes_needed, copy, race(calls, repeats, restore))


def by_autograd(shape: tuple[int, int], kind: str, copy: float, repeats: int) -> None:
    """The losses as programs call them."""
    import torch.distributed as dist

    from crossent import torch as ct

    n, classes = shape
    x = torch.empty(shape, dtype=TYPES[kind], device=DEVICE).normal_(0, 3)
    y = torch.randint(0, classes, (n,), device=DEVICE)
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    own = x.clone()
    leaf = own.detach().requires_grad_()
    calls: dict[str, Call] = {
        "crossent": backward(x, lambda a: ct.cross_entropy(a, y)),
        "crossent, vocab-parallel": backward(x, lambda a: ct.vocab_parallel_cross_entropy(a, y)),
        "torch": backward(x, lambda a: F.cross_entropy(a, y)),
    }
    peer = liger()
    if peer is not None:
        calls["Liger, in place"] = lambda: torch.autograd.grad(peer.apply(leaf, y, None)[0], leaf)
    restore = {"Liger, in place": lambda: own.copy_(x)}
    show("by autograd", shape, kind, 2 * x.nbytes, copy, race(calls, repeats, restore))
    dist.destroy_process_group()


def entropy(a: torch.Tensor) -> torch.Tensor:
    logs = torch.log_softmax(a, -1)
    return -(logs.exp() * logs).sum(-1)


def divergence(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    p, q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
    return (p.exp() * (p - q)).sum(-1)


def token(a: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    logs = torch.log_softmax(a, -1)
    picked = a.gather(1, y[:, None])
    return (
        logs.gather(1, y[:, None])[:, 0],
        -(logs.exp() * logs).sum(-1),
        torch.logsumexp(a, -1),
        (a > picked).sum(-1),
    )


def others(kernels: Any, shape: tuple[int, int], kind: str, copy: float, repeats: int,
           late: Callable[[], bool]) -> None:  # fmt: skip
    x, other = (
        torch.empty(shape, dtype=TYPES[kind], device=DEVICE).normal_(0, 3) for _ in range(2)
    )
    y = torch.randint(0, shape[1], (shape[0],), device=DEVICE)
    hits = torch.rand(shape, device=DEVICE).to(TYPES[kind])
    ones = torch.ones(shape[0], device=DEVICE)
    one = x.nbytes

    def both(a: torch.Tensor) -> torch.Tensor:
        log_prob, h, _, _ = token(a, y)
        return (log_prob + h).sum()

    binary = F.binary_cross_entropy_with_logits
    ours = kernels.binary_cross_entropy_with_logits
    cases: list[tuple[str, int, Call, Call]] = [
        ("entropy", one, lambda: kernels.entropy_with_logits(x), lambda: entropy(x)),
        ("entropy and gradient", 2 * one, lambda: kernels.entropy_with_logits(x, grad=True),
         backward(x, lambda a: entropy(a).sum())),
        ("KL", 2 * one, lambda: kernels.kl_divergence_with_logits(x, other),
         lambda: divergence(x, other)),
        ("KL and gradient", 3 * one,
         lambda: kernels.kl_divergence_with_logits(x, other, grad=True),
         backward(x, lambda a: divergence(a, other).sum())),
        ("BCE", 2 * one, lambda: ours(x, hits), lambda: binary(x, hits)),
        ("BCE and gradient", 3 * one, lambda: ours(x, hits, grad=True),
         backward(x, lambda a: binary(a, hits))),
        ("token", one, lambda: kernels.token_log_prob(x, y), lambda: token(x, y)),
        ("token and gradient", 2 * one,
         lambda: kernels.token_log_prob(x, y, grad_output=(ones, ones)), backward(x, both)),
    ]  # fmt: skip
    for what, needed, mine, theirs in cases:
        if late():
            return
        results = race({"crossent": mine, "torch": theirs}, repeats)
        show(what, shape, kind, needed, copy, results)


# Sizes of tuning, and the settings that are tried: block, elements a thread, blocks in flight,
# hints to the caches, a limit of registers. Losses have LOSS_BLOCK, gradients GRAD_BLOCK.
TUNED = ((4096, 32000, "bfloat16"), (16384, 128256, "bfloat16"), (16384, 262144, "bfloat16"),
         (4096, 128256, "float32"))  # fmt: skip
Setting = tuple[int, int, int, bool, "int | None"]
SETTINGS: list[Setting] = [
    *((block, thread, stages, True, None)
      for block in (2048, 4096, 8192) for thread in (8, 16, 32, 64) for stages in (1, 2, 3)),
    *((block, thread, 1, False, None)
      for block in (2048, 4096, 8192) for thread in (16, 32)),
    *((block, 32, stages, True, limit)
      for block in (2048, 4096) for stages in (1, 2) for limit in (96, 80)),
]  # fmt: skip
# Of these, what is timed at the other sizes.
FINALISTS = 12


WAYS = ("loss", "fresh", "in place")


def use(kernels: Any, setting: Setting) -> None:
    block, kernels.THREAD, kernels.STAGES, kernels.HINTS, kernels.REGISTERS = setting
    kernels.LOSS_BLOCK = kernels.GRAD_BLOCK = block


def warm(kernels: Any, part: int, parts: int) -> None:
    """Compiles a part of what tuning needs, for Triton's cache on disk."""
    y = torch.zeros(16, dtype=torch.int64, device=DEVICE)
    x = torch.zeros((16, 32000), dtype=torch.bfloat16, device=DEVICE)
    for setting in SETTINGS[part::parts]:
        use(kernels, setting)
        for grad in (False, True):
            try:
                kernels.cross_entropy(x, y, grad=grad)
            except Exception as error:  # what does not compile is not timed
                print(f"{setting}: {error}", file=sys.stderr)


def tune(kernels: Any, copy: float, repeats: int, late: Callable[[], bool]) -> None:
    """Times of other settings, the best first. All are tried at the first size; the best of them,
    for each way to write, at the others."""
    parts = max(1, (os.cpu_count() or 2) - 2)
    workers = [
        subprocess.Popen([sys.executable, __file__, "--warm", str(part), str(parts)])
        for part in range(parts)
    ]
    for worker in workers:
        worker.wait()
    print("\n| | tokens × classes | type | block | a thread | stages | hints | registers | ms | "
          "of the copy |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    rest = (kernels.THREAD, kernels.STAGES, kernels.HINTS, kernels.REGISTERS)
    default: dict[str, Setting] = {
        way: (kernels.LOSS_BLOCK if way == "loss" else kernels.GRAD_BLOCK, *rest) for way in WAYS
    }
    left: dict[str, list[Setting]] = dict.fromkeys(WAYS, SETTINGS)
    for n, classes, kind in TUNED:
        x = torch.empty((n, classes), dtype=TYPES[kind], device=DEVICE).normal_(0, 3)
        own = torch.empty_like(x)
        y = torch.randint(0, classes, (n,), device=DEVICE)
        calls: dict[str, Call] = {
            "loss": functools.partial(kernels.cross_entropy, x, y),
            "fresh": functools.partial(kernels.cross_entropy, x, y, grad=True),
            "in place": functools.partial(kernels.cross_entropy, own, y, inplace_grad=True),
        }
        for way in WAYS:
            times: list[tuple[float, Setting]] = []
            for setting in dict.fromkeys((default[way], *left[way])):
                if late():
                    break
                use(kernels, setting)
                before = functools.partial(own.copy_, x) if way == "in place" else nothing
                result = race({way: calls[way]}, repeats, {way: before})[way]
                if not isinstance(result, str):
                    times.append((result[0], setting))
            times.sort(key=lambda t: t[0])
            needed = x.nbytes * (1 if way == "loss" else 2)
            for ms, setting in times:
                fields = " | ".join(str(v) for v in setting)
                mark = " (default)" if setting == default[way] else ""
                share = needed / (ms * 1e-3) / copy
                print(f"| {way}{mark} | {n} × {classes} | {kind} | {fields} | {ms:.3f} | "
                      f"{share:.2f} |", flush=True)  # fmt: skip
            if len(left[way]) > FINALISTS:
                left[way] = [setting for _, setting in times[:FINALISTS]]
        del x, own, calls
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few sizes, few runs")
    parser.add_argument("--seconds", type=float, default=240.0, help="start nothing after these")
    parser.add_argument("--tune", action="store_true", help="compare settings instead")
    parser.add_argument("--warm", type=int, nargs=2, help="compile a part of --tune, and no more")
    options = parser.parse_args()
    seconds: float = options.seconds
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    begun = time.monotonic()

    def late() -> bool:
        return time.monotonic() - begun > seconds

    kernels = load()
    if options.warm:
        warm(kernels, *options.warm)
        return
    repeats = QUICK_REPEATS if options.quick else REPEATS
    copy = copy_rate(repeats)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
        f"triton {kernels.triton.__version__}, Python {platform.python_version()}, "
        f"Liger {'installed' if liger() else 'not installed'}; "
        f"a copy moves {copy / 1e9:.0f} GB/s, read and written\n"
    )
    if options.tune:
        tune(kernels, copy, repeats, late)
        return
    print("| | tokens × classes | type | | ms | GB/s | of the copy | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    kinds = ["bfloat16"] if options.quick else list(TYPES)
    jobs: list[tuple[str, Call]] = [
        (
            f"{n} × {classes} {kind}",
            functools.partial(cross_entropy, kernels, (n, classes), kind, copy, repeats),
        )
        for n in TOKENS
        for classes in CLASSES
        for kind in TYPES
    ]
    # Before the large sizes, which may have to be skipped.
    jobs[6:6] = [
        (f"others {kind}", functools.partial(others, kernels, OTHERS, kind, copy, repeats, late))
        for kind in kinds
    ]
    if importlib.util.find_spec("crossent") is not None:
        jobs[4:4] = [
            (f"by autograd {kind}", functools.partial(by_autograd, AUTOGRAD, kind, copy, repeats))
            for kind in kinds
        ]
    else:
        print("crossent is not installed: nothing by autograd", file=sys.stderr)
    if options.quick:
        jobs = jobs[:4] + [job for job in jobs if job[0].startswith(("by autograd", "others"))]
    skipped = []
    for name, job in jobs:
        if late():
            skipped.append(name)
            continue
        try:
            job()
        except torch.OutOfMemoryError:
            skipped.append(f"{name} (no room)")
        torch.cuda.empty_cache()
    if skipped:
        print(f"\nskipped: {', '.join(skipped)}")
    print(f"\n{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
