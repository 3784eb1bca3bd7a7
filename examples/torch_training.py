"""A small GPT, trained twice from one start on the same batches: by torch's loss, by crossent's.

The two curves of the loss are the same, to 1e-5 at every step. Printed beside that: what part of a
step's time and memory the loss took, its backward pass included. Every figure is measured.

Gradients of two losses, both correct, differ in the last bits, and what differs is fed back to the
model at each step. While the loss falls smoothly it stays in the last bits: AdamW at a rate of 3e-3
held the curves within 1e-6 for 500 steps. At 1e-2 the loss jumps from some starts, and 100 steps
made 1e-2 of the last bits, as they would for any two losses that round differently. So the rate is
2e-3, for 50 steps, in float32, and algorithms are deterministic.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from math import nan
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossent import torch as ct

Loss = Callable[[Tensor, Tensor], Tensor]

SEED = 0
RATE = 2e-3
AGREEMENT = 1e-5  # demanded of the losses at every step

WIDTH = 64
HEADS = 4
BLOCKS = 2
CONTEXT = 128
# Logits of more than 32 MiB: below, C libraries may keep memory that is freed, and whoever takes it
# next would seem to take none.
BATCH = 12

LOSSES: dict[str, Loss] = {"torch": F.cross_entropy, "crossent": ct.cross_entropy}


class Model(nn.Module):  # type: ignore[misc]
    """Words (batch, context) to logits (batch * context, vocabulary) of the word after each."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        options = {"dropout": 0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, **options) for _ in range(BLOCKS)
        )
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary, bias=False))

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.places.weight
        causal = nn.Transformer.generate_square_subsequent_mask(CONTEXT, x.device)
        for block in self.blocks:
            x = block(x, causal, is_causal=True)
        return self.head(x).flatten(0, 1)


def read(device: str) -> Tensor:
    """Python's reference manual, as numbers of its words."""
    text = "\n".join(topics[name] for name in sorted(topics))
    words = re.findall(r" ?\w+| ?[^\w\s]+|\s+", text)
    numbers = {word: number for number, word in enumerate(sorted(set(words)))}
    return torch.tensor([numbers[word] for word in words], device=device)


class Meter:
    """The time, and the memory in use: of the process, or on the GPU."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def memory(self) -> tuple[float, float]:
        """Bytes in use, and the most since the call before; NaN where the system cannot tell."""
        if self.cuda:
            most = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated(), most
        # torch's profiler knows of torch's buffers alone, Linux of NumPy's and Rust's as well.
        # Files are left out: code is read from them when it first runs.
        try:
            status = Path("/proc/self/status").read_text()
            Path("/proc/self/clear_refs").write_text("5")
            kib = {name: int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", status)}
            files = kib["RssFile"] + kib["RssShmem"]
            return 1024 * kib["RssAnon"], 1024 * (kib["VmHWM"] - files)
        except (OSError, KeyError):
            return nan, nan


class Step(NamedTuple):
    loss: float
    loss_seconds: float
    seconds: float
    loss_bytes: float  # at most, beside what was in use before the loss
    bytes: float  # at most


def take_step(
    model: Model, optimizer: Any, criterion: Loss, words: Tensor, targets: Tensor, meter: Meter
) -> Step:
    start = meter.now()
    # The graph is cut at the logits, to tell the loss's part of the backward pass from the rest.
    logits = model(words)
    leaf = logits.detach().requires_grad_()

    held, most = meter.memory()
    before = meter.now()
    loss = criterion(leaf, targets)
    (gradient,) = torch.autograd.grad(loss, leaf)
    loss_seconds = meter.now() - before
    _, loss_most = meter.memory()

    optimizer.zero_grad()
    logits.backward(gradient)
    optimizer.step()
    seconds = meter.now() - start
    most = max(most, loss_most, meter.memory()[1])
    return Step(loss.item(), loss_seconds, seconds, loss_most - held, most)


def train(criterion: Loss, text: Tensor, count: int, meter: Meter, batch: int) -> list[Step]:
    torch.manual_seed(SEED)
    model = Model(int(text.max()) + 1).to(text.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    random = torch.Generator().manual_seed(SEED)
    steps = []
    for _ in range(count):
        starts = torch.randint(len(text) - CONTEXT, (batch, 1), generator=random)
        words = text[(starts + torch.arange(CONTEXT + 1)).to(text.device)]
        inputs, targets = words[:, :-1], words[:, 1:].flatten()
        steps.append(take_step(model, optimizer, criterion, inputs, targets, meter))
    return steps


def report(name: str, steps: list[Step], rest: float, logits_bytes: int) -> None:
    """Medians, without the first step, in which threads are started."""
    usual = Step(*map(median, zip(*steps[1:], strict=True)))
    memory = usual.bytes - rest
    print(
        f"  {name:9} time {1e3 * usual.loss_seconds:.1f} ms, "
        f"{usual.loss_seconds / usual.seconds:.0%} of {1e3 * usual.seconds:.0f}; "
        f"memory {usual.loss_bytes / 2**20:.1f} MiB, {usual.loss_bytes / memory:.0%} of "
        f"{memory / 2**20:.0f}: {usual.loss_bytes / logits_bytes:.2f} times the logits"
    )


def draw(runs: dict[str, list[Step]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    looks = ("#f0c9a5", 6), ("#2a6fbb", 1.5)
    for (name, steps), (colour, width) in zip(runs.items(), looks, strict=True):
        losses = [step.loss for step in steps]
        axes.plot(range(1, len(losses) + 1), losses, color=colour, linewidth=width, label=name)
    axes.set(xlabel="step", title="Mean cross-entropy, nats")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=50, help="2 or more (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="a picture of both curves (needs matplotlib)")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps must be 2 or more")

    # cuBLAS asks for this where algorithms have to be deterministic. That memory is filled when it
    # is fresh comes along with them, and would be taken for time of the loss.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False

    text, meter = read(options.device), Meter(options.device)
    shape = BATCH * CONTEXT, int(text.max()) + 1
    logits_bytes = 4 * shape[0] * shape[1]
    print(f"{len(text)} words; logits {shape}, {logits_bytes / 2**20:.1f} MiB\n")

    for criterion in LOSSES.values():  # loads what is loaded when first used
        train(criterion, text, 1, meter, 1)
    rest, _ = meter.memory()
    runs = {}
    for name, criterion in LOSSES.items():
        print(f"{options.steps} steps by the loss of {name} ...", flush=True)
        runs[name] = train(criterion, text, options.steps, meter, BATCH)

    print("\n  step" + "".join(f"{name:>11}" for name in runs))
    losses = [[step.loss for step in steps] for steps in zip(*runs.values(), strict=True)]
    for index in sorted({*range(0, options.steps, 10), options.steps - 1}):
        print(f"  {index + 1:4}" + "".join(f"{loss:11.6f}" for loss in losses[index]))
    apart = [abs(theirs - ours) for theirs, ours in losses]
    print(f"  at most {max(apart):.1e} apart (demanded: {AGREEMENT:.0e})")

    print("\nThe loss's part of a step")
    for name, steps in runs.items():
        report(name, steps, rest, logits_bytes)
    if options.out:
        draw(runs, options.out)
        print(f"\nPicture: {options.out}")
    if all(distance <= AGREEMENT for distance in apart):  # a NaN is no agreement
        return 0
    print("error: the losses differ", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
