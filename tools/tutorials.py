"""Runs the examples and keeps what they print and draw, for the pages of the site.

    python tools/tutorials.py [NAME ...]

The outputs are kept, so that the site is built in seconds; beside each is a hash of the script that
made it, and the site is not built with the output of another script.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "docs" / "tutorials" / "outputs"
RECORD = OUTPUTS / "scripts.json"
# Which examples there are, and which of them draw. `connections.py` writes a page of its own.
EXAMPLES = {
    "boosting": False,
    "calibration": True,
    "digits": True,
    "onnx_runtime": False,
    "perplexity": False,
    "torch_training": True,
}


def digest(name: str) -> str:
    script = (ROOT / "examples" / f"{name}.py").read_bytes()
    return hashlib.sha256(script.replace(b"\r\n", b"\n")).hexdigest()


def recorded() -> dict[str, str]:
    found: dict[str, str] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def check() -> None:
    """Raises ValueError where an output is missing or of another script, or an example unknown."""
    found = recorded()
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"connections"}
    if scripts != EXAMPLES.keys():
        raise ValueError(
            f"examples without a tutorial, or the reverse: {scripts ^ EXAMPLES.keys()}"
        )
    stale = [name for name in EXAMPLES if found.get(name) != digest(name)]
    if stale:
        raise ValueError(
            f"outputs of other scripts than examples/{{{','.join(stale)}}}.py: run `make tutorials`"
        )


def run(name: str) -> None:
    """One example, from the root, as a reader would run it."""
    command = [sys.executable, f"examples/{name}.py"]
    picture = Path("build") / f"{name}.png"
    if EXAMPLES[name]:
        command += ["--out", str(picture)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"TERM": "dumb"}
    )
    if done.returncode:
        sys.exit(f"{name}.py failed")
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    (OUTPUTS / f"{name}.txt").write_text(done.stdout, encoding="utf-8")
    if EXAMPLES[name]:
        (OUTPUTS / f"{name}.png").write_bytes((ROOT / picture).read_bytes())
    RECORD.write_text(
        json.dumps(recorded() | {name: digest(name)}, indent=2, sort_keys=True) + "\n"
    )


def main() -> None:
    for name in sys.argv[1:] or EXAMPLES:
        print(name, flush=True)
        run(name)


if __name__ == "__main__":
    main()
