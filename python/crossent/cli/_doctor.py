"""`crossent doctor`: what this machine has, and whether the numbers come out right on it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import crossent
from crossent.cli._errors import Exit

# What uses them.
OPTIONAL = {
    "torch": "crossent.torch",
    "triton": "crossent.torch on CUDA",
    "ml_dtypes": "bfloat16 in NumPy",
    "safetensors": "crossent evaluate",
    "zarr": "crossent evaluate",
    "pyarrow": "crossent evaluate",
    "tqdm": "the progress bar",
    "dask": "evaluate_dask",
    "distributed": "evaluate_dask on a cluster",
    "matplotlib": "figures",
    "scikit-learn": "crossent bench",
    "scipy": "crossent bench",
    "jax": "crossent bench",
}
VARIABLES = ("CROSSENT_NUM_THREADS", "CROSSENT_SIMD")
# Of [20, 0], class 0: log(1 + exp(-20)), where the usual formula says 0.
EXPECTED = 2.0611536181902037e-09


def run(options: argparse.Namespace) -> int:
    """Prints what is found; fails where a loss does not come out right."""
    found = findings()
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(shown(found)))
    return Exit.DONE if found["right"] else Exit.REFUSED


def findings() -> dict[str, Any]:
    """Everything, by name."""
    row = np.array([[20.0, 0.0]], np.float32)
    loss = float(crossent.cross_entropy(row, [0]))
    return {
        "crossent": crossent.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "simd": crossent.simd_level(),
        "threads": crossent.get_num_threads(),
        "cores": os.cpu_count(),
        "cores_allowed": cores_allowed(),
        "cgroup_cpus": cgroup_cpus(),
        "cgroup_memory": cgroup_memory(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": {name: version(name) for name in OPTIONAL},
        "loss": loss,
        "right": abs(loss / EXPECTED - 1) < 2**-22,
    }


def cores_allowed() -> int | None:
    """Cores that this process may run on, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def version(package: str) -> str | None:
    """Without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cgroup_file(name: str, root: Path = Path("/sys/fs/cgroup")) -> str | None:
    """A file of this process's control group, or of the first above it that has it (version 2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    group = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    place = root / group.strip("/")
    for folder in (place, *place.parents):
        if (folder / name).is_file():
            return (folder / name).read_text()
        if folder == root:
            break
    return None


def cgroup_cpus(text: str | None = None) -> float | None:
    """How many cores' time the control group grants, None where it does not limit it."""
    text = cgroup_file("cpu.max") if text is None else text
    if text is None or text.startswith("max"):
        return None
    quota, period = text.split()
    return int(quota) / int(period)


def cgroup_memory(text: str | None = None) -> int | None:
    """How many bytes it grants."""
    text = cgroup_file("memory.max") if text is None else text
    return None if text is None or text.startswith("max") else int(text)


def shown(found: dict[str, Any]) -> list[str]:
    """The same as text."""
    cpus, memory = found["cgroup_cpus"], found["cgroup_memory"]
    table = [
        ("crossent", found["crossent"]),
        ("Python", found["python"]),
        ("NumPy", found["numpy"]),
        ("platform", found["platform"]),
        ("instruction set", found["simd"]),
        ("threads", str(found["threads"])),
        ("cores", f"{found['cores']}, {found['cores_allowed'] or 'all'} allowed"),
        ("cgroup: CPU", "no limit" if cpus is None else f"{cpus:g} cores"),
        ("cgroup: memory", "no limit" if memory is None else f"{memory / 2**20:,.0f} MiB"),
        *found["environment"].items(),
    ]
    if cpus is not None and found["threads"] > cpus:
        table.append(("", f"more threads than that: CROSSENT_NUM_THREADS={max(1, int(cpus))}"))
    table += [
        (name, f"{held or 'not installed'} ({OPTIONAL[name]})")
        for name, held in found["packages"].items()
    ]
    verdict = "right" if found["right"] else f"WRONG: expected {EXPECTED}; please report this"
    table.append(("loss of [20, 0]", f"{found['loss']:.8g}, {verdict}"))
    width = max(len(name) for name, _ in table)
    return [f"{name:{width}}  {value}" for name, value in table]
