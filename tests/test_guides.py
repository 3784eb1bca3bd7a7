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

DOCS = Path(__file__).parent.parent / "docs"

PAGES = ["boosting", "sklearn", "index"]
PAGES += sorted(f"howto/{path.stem}" for path in (DOCS / "howto").glob("*.md"))
PAGES.remove("howto/index")


@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_guide(page, tmp_path, monkeypatch):
    """Block after block, in one namespace: later ones use what earlier ones made.

    Blocks of `py`, not `python`, need what is not here, such as a model's file; they say so.
    """
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    with threadpool_limits(limits=1):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{page}.md, block {number}", "exec"), names)
