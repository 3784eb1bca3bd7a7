"""Compares two wheels bit for bit, and names what differs.

python tools/compare_wheels.py ONE.whl OTHER.whl
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from pathlib import Path


def members(path: Path) -> dict[str, tuple[object, ...]]:
    """What a wheel says of each of its files."""
    with zipfile.ZipFile(path) as wheel:
        return {
            it.filename: (it.CRC, it.file_size, it.compress_size, it.date_time, it.external_attr)
            for it in wheel.infolist()
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheels", type=Path, nargs=2, metavar="WHEEL")
    one, other = parser.parse_args().wheels
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, other)]
    for digest, path in zip(sums, (one, other), strict=True):
        print(f"{digest}  {path}")
    if sums[0] == sums[1] and one.name == other.name:
        print("the same, bit for bit")
        return 0
    before, after = members(one), members(other)
    differ = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    print(f"not the same: {', '.join(sorted(differ)) or 'the order or the names of files'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
