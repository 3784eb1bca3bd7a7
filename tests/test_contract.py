"""Every loss of the Rust table has its function, class, stub, page and gradient test."""

import inspect
import re
from pathlib import Path

import pytest
import torch

import crossent
import crossent.functional as F

HERE = Path(__file__).parent
ROOT = HERE.parent
LOSSES = crossent._core.losses()
SECTIONS = {
    "arguments": r"Arguments|Args|Parameters",
    "shape": r"Shapes?",
    "errors": r"Errors|Raises",
    "example": r"Examples?",
    "reference": r"References?",
}
EVERY_LOSS = pytest.mark.parametrize("function, module", LOSSES, ids=str)


def test_the_table_holds_the_families():
    assert ("cross_entropy", "CrossEntropyLoss") in LOSSES
    assert ("nll_loss", "NLLLoss") in LOSSES
    assert ("binary_cross_entropy_with_logits", "BCEWithLogitsLoss") in LOSSES
    assert ("sigmoid_focal_loss", None) in LOSSES
    assert len(set(LOSSES)) == len(LOSSES)


@EVERY_LOSS
def test_function(function, module):
    assert hasattr(F, function), f"crossent.functional has no {function}"
    assert inspect.isfunction(getattr(F, function))
    assert function in F.__all__
    assert hasattr(crossent, function), f"crossent has no {function}: __init__.py"
    assert getattr(crossent, function) is getattr(F, function)
    assert function in crossent.__all__


@EVERY_LOSS
def test_class(function, module):
    if module is None:
        # Nor has torch one.
        likely = {function.replace("_", "") + suffix for suffix in ("", "loss")}
        assert not likely & {name.lower() for name in vars(torch.nn)}
        return
    assert hasattr(crossent, module), f"crossent has no {module}: modules.py and __init__.py"
    assert inspect.isclass(getattr(crossent, module))
    assert module in crossent.__all__
    assert inspect.getdoc(getattr(crossent, module))


@EVERY_LOSS
@pytest.mark.parametrize("section", SECTIONS)
def test_docstring(function, module, section):
    heading = re.compile(rf"^\s*(?:#+\s*)?(?:{SECTIONS[section]})\b\s*:*\s*", re.M)
    classes = [] if module is None else [getattr(crossent, module)]
    for documented in (getattr(F, function), *classes):
        assert heading.search(inspect.getdoc(documented)), f"{documented.__name__}: no {section}"


@EVERY_LOSS
def test_keyword_only_additions(function, module):
    """What every loss takes beyond torch."""
    parameters = inspect.signature(getattr(F, function)).parameters
    for name, default in (("return_grad", False), ("grad_output", None), ("grad_out", None)):
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default is default


@EVERY_LOSS
def test_what_reductions_take(function, module):
    parameters = inspect.signature(getattr(F, function)).parameters
    if "reduction" in parameters:
        assert {"sample_weight", "denominator", "empty"} <= parameters.keys()
    if function == "cross_entropy" or function.endswith("with_logits"):
        warped = {"temperature", "softcap", "class_mask"} <= parameters.keys()
        assert warped == (not function.startswith("binary"))


@EVERY_LOSS
def test_stub(function, module):
    stub = (ROOT / "python" / "crossent" / "_core.pyi").read_text()
    found = re.search(rf"^def {function}\(", stub, re.M)
    assert found, f"python/crossent/_core.pyi has no stub of {function}"


@EVERY_LOSS
def test_page(function, module):
    page = (ROOT / "docs" / "losses.md").read_text()
    found = re.search(rf"^#+ .*\b{function}\b", page, re.M)
    assert found, f"docs/losses.md has no section on {function}"
    assert module is None or module in page, f"docs/losses.md does not name {module}"


@EVERY_LOSS
def test_gradient_test(function, module):
    """A test marked with the loss's name."""
    tests = "".join(path.read_text() for path in sorted(HERE.glob("test_*.py")))
    mark = f'@pytest.mark.gradient("{function}")'
    assert mark in tests, f"no test in tests/ is marked {mark}"


def test_typed():
    assert (ROOT / "python" / "crossent" / "py.typed").is_file()


def test_nothing_panics_on_demand():
    """What `make fault` builds is in no wheel."""
    assert not hasattr(crossent._core, "_panic")
