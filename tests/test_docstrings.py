"""The examples run as printed, and the signatures are torch's."""

import doctest
import inspect

import pytest
import torch
import torch.nn.functional as TF

import crossent
import crossent.cli
import crossent.evaluation
import crossent.functional as F

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
PUBLIC = [
    *((f"functional.{name}", getattr(F, name)) for name in F.__all__),
    *((name, getattr(crossent, name)) for name in crossent.__all__),
]
PUBLIC = [(name, thing) for name, thing in PUBLIC if callable(thing)]
# And what is not re-exported, with the methods that have examples of their own.
for module in (crossent.evaluation, crossent.cli):
    for name in module.__all__:
        PUBLIC.append((f"{module.__name__}.{name}", getattr(module, name)))
METHODS = [
    (f"Evaluation.{name}", method)
    for name, method in vars(crossent.evaluation.Evaluation).items()
    if not name.startswith("_")
]
EVERY_PUBLIC = pytest.mark.parametrize("name, thing", PUBLIC, ids=[name for name, _ in PUBLIC])

# Each building block's parameters, which are not torch's.
WARP = "temperature=1.0, softcap=None, class_mask=None"
BLOCKS = {
    "softmax": f"(input, axis, *, {WARP}, out=None)",
    "log_softmax": f"(input, axis, *, {WARP}, out=None)",
    "logsumexp": f"(input, axis, keepdims=False, *, {WARP})",
}
ADDED = {
    "cross_entropy": {
        "axis": None,
        "return_grad": False,
        "grad_output": None,
        "grad_out": None,
        "return_hess": False,
        "hess_out": None,
    },
    "nll_loss": {"axis": None, "return_grad": False, "grad_output": None, "grad_out": None},
}


def run_examples(name, thing):
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report = []
    for test in finder.find(thing, name, globs={}):
        test.globs = {}
        runner.run(test, out=report.append)
    return runner.summarize(verbose=False), "".join(report)


@EVERY_PUBLIC
def test_examples(name, thing):
    results, report = run_examples(name, thing)
    assert results.failed == 0, report
    assert results.attempted > 0, f"{name} has no example"


@pytest.mark.parametrize("name, method", METHODS, ids=[name for name, _ in METHODS])
def test_methods_of_evaluation(name, method):
    if isinstance(method, property):
        assert method.__doc__
        return
    results, report = run_examples(name, getattr(method, "__func__", method))
    assert results.failed == 0, report
    assert results.attempted > 0, f"{name} has no example"


@pytest.mark.parametrize(
    "module",
    [crossent, F, crossent.evaluation],
    ids=["crossent", "functional", "evaluation"],
)
def test_examples_of_modules(module):
    assert inspect.getdoc(module)
    results, report = run_examples(module.__name__, module)
    assert results.failed == 0, report


def parameters_of(thing):
    """(name, default) pairs in order, without self and torch's deprecated arguments."""
    parameters = inspect.signature(thing).parameters.values()
    skipped = ("self", "size_average", "reduce")
    return [p for p in parameters if p.name not in skipped]


def positional(parameters):
    return [(p.name, p.default) for p in parameters if p.kind is not KEYWORD_ONLY]


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_function_has_torchs_signature(name):
    ours = parameters_of(getattr(F, name))
    assert positional(ours) == positional(parameters_of(getattr(TF, name)))
    added = {p.name: p.default for p in ours if p.kind is KEYWORD_ONLY}
    assert ADDED[name].items() <= added.items()


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_class_has_torchs_signature(name):
    ours, theirs = getattr(crossent, name), getattr(torch.nn, name)
    assert positional(parameters_of(ours)) == positional(parameters_of(theirs.__init__))
    call = parameters_of(ours.__call__)
    assert positional(call) == positional(parameters_of(theirs.forward))
    assert {p.name for p in call if p.kind is KEYWORD_ONLY} >= {"return_grad", "grad_output"}
    assert {p.name: p.default for p in parameters_of(ours)}["axis"] is None


@pytest.mark.parametrize("name", BLOCKS)
def test_building_block_signature(name):
    parameters = inspect.signature(getattr(F, name)).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    assert str(inspect.Signature(bare)) == BLOCKS[name]


@EVERY_PUBLIC
def test_public_names_are_documented(name, thing):
    assert inspect.getdoc(thing)
    assert inspect.signature(thing) is not None
