"""Runs the fuzz targets in turn, on every instruction set of the machine, and counts what they ran.

usage: python run.py FOLDER SECONDS [CHUNK]

FOLDER holds the targets that were built. Inputs that reach something new, and those that fail, are
kept in FOLDER/corpus and FOLDER/failures; the seeds of the repository are only read.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = ("classes", "elements")
# A level that the machine lacks is the one below it.
LEVELS = ("avx512", "avx2", "baseline")


def fuzz(folder, target, level, seconds):
    """The executions of one run, and whether it ended well."""
    corpus, failures = folder / "corpus" / target, folder / "failures"
    corpus.mkdir(parents=True, exist_ok=True)
    failures.mkdir(exist_ok=True)
    command = [folder / target, corpus, HERE / "corpus" / target]
    command += [f"-max_total_time={seconds}", "-max_len=200", "-len_control=0", "-timeout=120"]
    command += [f"-artifact_prefix={failures}/{target}-{level}-", "-print_final_stats=1"]
    done = subprocess.run(
        command,
        env={**os.environ, "CROSSENT_SIMD": level, "RUST_BACKTRACE": "0"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode:
        print(*done.stderr.splitlines()[-60:], sep="\n")
    found = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return int(found[1]) if found else 0, done.returncode == 0


def main():
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    chunk = float(sys.argv[3]) if len(sys.argv) > 3 else 240
    clean = True
    for target in TARGETS:
        start, executions, turn = time.monotonic(), 0, 0
        while (left := start + seconds - time.monotonic()) >= 1:
            share = max(1, int(min(left, chunk, seconds / len(LEVELS))))
            more, ended_well = fuzz(folder, target, LEVELS[turn % len(LEVELS)], share)
            executions, turn = executions + more, turn + 1
            if not ended_well:
                clean = False
                break
        spent = time.monotonic() - start
        print(f"{target}: {executions} executions in {spent:.0f} s, {turn} runs")
    sys.exit(not clean)


if __name__ == "__main__":
    main()
