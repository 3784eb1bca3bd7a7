"""Installs a wheel where nothing else is, and computes with it: every Python, two NumPys each.

    python tools/matrix.py dist/*.whl

Interpreters are those that this machine has: `python3.X` on the path, pyenv's, uv's. One that is
missing is named as missing. The oldest NumPy is the one that the wheel's metadata asks for or,
where that has no wheel for a Python, the first that has; the newest is what pip takes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "matrix"

# The first NumPy with wheels for a Python; None: older ones than are supported.
FIRST: dict[str, str | None] = {
    "3.10": None,
    "3.11": "1.23.2",
    "3.12": "1.26.0",
    "3.13": "2.1.0",
    "3.14": "2.3.2",
}


def is_python(path: str, version: str) -> bool:
    """Whether a program runs and is CPython of a version, with its lock."""
    code = (
        "import platform, sys, sysconfig, venv, ensurepip; assert "
        "platform.python_implementation() == 'CPython' and not sysconfig.get_config_var("
        "'Py_GIL_DISABLED'); print('%d.%d' % sys.version_info[:2])"
    )
    try:
        found = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    except OSError:
        return False
    return found.returncode == 0 and found.stdout.strip() == version


def interpreter(version: str) -> str | None:
    """A Python of a version, or None."""
    candidates = [sys.executable, shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(it / "bin" / "python") for it in sorted(pyenv.glob(f"{version}.*"))[::-1]]
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-python-downloads", "--system", version]
        candidates.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return next((it for it in candidates if it and is_python(it, version)), None)


def oldest_numpy(wheel: Path) -> str:
    """The oldest NumPy that the wheel says it works with."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (it for it in archive.namelist() if it.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    found = re.search(r"^Requires-Dist: numpy\s*\(?>=([\d.]+)\)?\s*$", metadata, re.M)
    assert found, "the wheel's metadata names no oldest NumPy"
    return found[1] + ".0" * (2 - found[1].count("."))


def attempt(python: str, wheel: Path, numpy: str, folder: Path) -> tuple[bool, str]:
    """Whether it installs, imports and computes in a new environment; the last line printed."""
    own = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [own, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    for command in (
        [python, "-m", "venv", "--clear", str(folder)],
        [*pip, str(wheel), numpy],
        [own, "-m", "pip", "check"],
        [own, "-I", str(ROOT / "tests" / "smoke.py")],
    ):
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
        lines = (done.stdout + done.stderr).strip().splitlines()
        if done.returncode:
            return False, "\n".join([f"{' '.join(command)}:", *lines[-20:]])
    return True, lines[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--all", action="store_true", help="fail where a Python is missing")
    options = parser.parse_args()
    wheel = options.wheel.resolve()
    bound = oldest_numpy(wheel)
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed, missing, tried = 0, [], 0
    for version, first in FIRST.items():
        python = interpreter(version)
        if python is None:
            missing.append(version)
            continue
        for kind, numpy in (("oldest", f"numpy=={first or bound}"), ("newest", "numpy")):
            holds, line = attempt(python, wheel, numpy, FOLDER / f"{version}-{kind}")
            failed += not holds
            tried += 1
            word = "ok  " if holds else "FAIL"
            print(f"{word}  Python {version:5} {kind} NumPy: {line}", flush=True)
    for version in missing:
        print(f"----  Python {version:5} is missing on this machine: not tried")
    print(f"{tried} environments, {failed} failed, {len(missing)} of {len(FIRST)} Pythons missing")
    return 1 if failed or not tried or (options.all and missing) else 0


if __name__ == "__main__":
    sys.exit(main())
