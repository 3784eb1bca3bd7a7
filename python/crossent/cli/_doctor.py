"""`crossent doctor`: what this machine has, and whether the numbers come out right on it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import crossent
from crossent.cli._errors import Exit

# What uses them, or what they are used with.
OPTIONAL = {
    "torch": "crossent.torch",
    "triton": "crossent.torch on CUDA",
    "ml_dtypes": "bfloat16 in NumPy",
    "zarr": "crossent evaluate",
    "pyarrow": "crossent evaluate",
    "tqdm": "the progress bar",
    "dask": "evaluate_dask",
    "distributed": "evaluate_dask on a cluster",
    "matplotlib": "figures",
    "scikit-learn": "crossent.sklearn, crossent bench",
    "scipy": "crossent.sklearn, crossent bench",
    "xgboost": "crossent.boosting",
    "lightgbm": "crossent.boosting",
    "catboost": "crossent.boosting",
    "onnxruntime": "logits of ONNX models",
    "jax": "crossent bench",
}
# Other names under which the same package is distributed.
ALSO = {"xgboost": ("xgboost-cpu",), "onnxruntime": ("onnxruntime-gpu",)}
VARIABLES = ("CROSSENT_NUM_THREADS", "CROSSENT_SIMD")
# Version 1 of control groups writes no limit as the largest multiple of a page.
NO_LIMIT = 1 << 62
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
        "environment_ignored": ignored(),
        "packages": {name: version(name) for name in OPTIONAL},
        "loss": loss,
        "right": abs(loss / EXPECTED - 1) < 2**-22,
    }


def cores_allowed() -> int | None:
    """Cores that this process may run on, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def ignored() -> list[str]:
    """Variables of the environment that are set to what they cannot be, and have no effect."""
    text = os.environ.get("CROSSENT_NUM_THREADS", "1")
    is_count = re.fullmatch(r"\+?[0-9]+", text) and 0 < int(text) < 2**64
    return [] if is_count else ["CROSSENT_NUM_THREADS"]


def version(package: str) -> str | None:
    """Without importing it."""
    for name in (package, *ALSO.get(package, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def cgroup_folders(
    controller: str,
    root: Path = Path("/sys/fs/cgroup"),
    groups: Path = Path("/proc/self/cgroup"),
) -> Iterator[Path]:
    """This process's control group and those above it, whose limits hold, too. Version 2 has one
    tree, version 1 one for each controller; both may be there."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top = root / "unified" if (root / "unified").is_dir() else root
        elif controller in controllers.split(","):
            top = root / controller if (root / controller).is_dir() else root / controllers
        else:
            continue
        place = top / group.strip("/")
        yield place
        # Of a container, a part of the path may be outside of what it sees.
        yield from (folder for folder in place.parents if folder.is_relative_to(top))


def cgroup_cpus(*places: Path) -> float | None:
    """How many cores' time the control groups grant, None where they do not limit it."""
    limits = []
    for folder in cgroup_folders("cpu", *places):
        found = words(folder / "cpu.max")
        found = found or words(folder / "cpu.cfs_quota_us") + words(folder / "cpu.cfs_period_us")
        if len(found) == 2 and found[0] not in ("max", "-1"):
            limits.append(int(found[0]) / int(found[1]))
    return min(limits, default=None)


def cgroup_memory(*places: Path) -> int | None:
    """How many bytes they grant."""
    limits = []
    for folder in cgroup_folders("memory", *places):
        found = words(folder / "memory.max") or words(folder / "memory.limit_in_bytes")
        if found and found[0] != "max" and int(found[0]) < NO_LIMIT:
            limits.append(int(found[0]))
    return min(limits, default=None)


def words(file: Path) -> list[str]:
    """None of a file that cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []


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
        *(
            (name, f"{value} (ignored: it must be a whole number from 1 on)")
            if name in found["environment_ignored"]
            else (name, value)
            for name, value in found["environment"].items()
        ),
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
