"""Checks what the crate and the source distribution hold: what a build needs, and no more.

    python tools/check_sources.py SDIST.tar.gz
    python tools/check_sources.py SDIST.tar.gz --build

Both are compared with the files that git tracks. --build also does what a user's pip does: it
builds a wheel from the source distribution alone, installs it in a new environment and computes
with it. That build is not optimised, to be quick: what it shows is that nothing is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = {"Cargo.toml", "Cargo.lock", "README.md", "CHANGELOG.md", "benches/kernels.rs"}
CRATE = ("LICENSE", "licenses/", "src/")
# What cargo and maturin add.
ADDED = {"Cargo.toml.orig", ".cargo_vcs_info.json"}
QUICK = {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
}


def printed(*command: str) -> set[str]:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {line.replace("\\", "/") for line in done.stdout.splitlines()}


def compare(what: str, found: set[str], wanted: set[str]) -> bool:
    """Whether two lists of files are one, and what differs."""
    for name in sorted(found - wanted):
        print(f"FAIL  {what} has {name}, which nothing needs")
    for name in sorted(wanted - found):
        print(f"FAIL  {what} lacks {name}")
    if found == wanted:
        print(f"ok    {what}: {len(found)} files, those that it needs")
    return found == wanted


def check_lists(sdist: Path) -> bool:
    """Whether both hold what they need, and nothing else."""
    tracked = printed("git", "ls-files")
    crate = {name for name in tracked if name in FILES or name.startswith(CRATE)}
    listed = printed("cargo", "package", "--list", "--allow-dirty", "--quiet") - ADDED
    fine = compare("the crate", listed, crate)
    python = {name for name in tracked if name.startswith("python/")}
    with tarfile.open(sdist) as archive:
        members = {it.name.partition("/")[2] for it in archive.getmembers() if it.isfile()}
    wanted = crate | python | {"pyproject.toml", "PKG-INFO"}
    return compare("the source distribution", members, wanted) and fine


def check_build(sdist: Path) -> bool:
    """Whether a wheel comes of it in a clean environment, and computes."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        environment = {**os.environ, **QUICK, "CARGO_TARGET_DIR": str(place / "target")}
        environment.pop("PYTHONPATH", None)
        python = str(place / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
        for command in (
            [sys.executable, "-m", "venv", str(place / "env")],
            [python, "-m", "pip", "install", "--quiet", "--no-binary=crossent", str(sdist)],
            [python, "-I", str(ROOT / "tests" / "smoke.py")],
        ):
            done = subprocess.run(command, cwd=place, env=environment)
            if done.returncode:
                print(f"FAIL  {' '.join(command)}")
                return False
    print("ok    a wheel built from the source distribution alone installs and computes")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--build", action="store_true", help="also build from it (minutes)")
    arguments = parser.parse_args()
    sdist = arguments.sdist.resolve()
    fine = check_lists(sdist)
    if arguments.build:
        fine = check_build(sdist) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
