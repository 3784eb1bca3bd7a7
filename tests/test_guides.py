"""The guides: their code runs as it stands."""

import re
from pathlib import Path

# Loaded before threads are limited, which limits those of loaded libraries alone.
import lightgbm  # noqa: F401
import pytest
import scipy.linalg  # noqa: F401
import sklearn.linear_model  # noqa: F401
import xgboost  # noqa: F401
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Parts of an example, which is run as it is; and what tests/evaluation/test_pages.py runs.
ELSEWHERE = {ROOT / "docs" / "connections.md", ROOT / "docs" / "evaluation.md"}
PAGES = {
    path.relative_to(ROOT).as_posix(): blocks
    for path in FILES
    if path not in ELSEWHERE and (blocks := BLOCK.findall(path.read_text(encoding="utf-8")))
}


def test_the_pages_are_there():
    assert {"README.md", "docs/losses.md", "docs/torch.md", "docs/howto/calibration.md"} <= set(
        PAGES
    )


@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_guide(page, tmp_path, monkeypatch):
    """Block after block, in one namespace: later ones use what earlier ones made.

    Blocks of `py`, not `python`, need what is not here, such as a model's file; they say so.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with threadpool_limits(limits=1):
        for number, block in enumerate(PAGES[page]):
            exec(compile(block, f"{page}, block {number}", "exec"), names)
