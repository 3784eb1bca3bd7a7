"""The examples of crossent.torch run as printed, and its signatures are torch's."""

import doctest
import inspect

import pytest
import torch
import torch.nn.functional as TF
from cases import CASES

import crossent
from crossent import torch as ct

NAMES = [name for name in ct.__all__ if callable(getattr(ct, name))]
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
# What arrays do not have.
PARALLEL = "vocab_parallel_cross_entropy"
# Of arrays alone: autograd has the gradient, and torch a name of its own for the axis.
GRADIENTS = {"return_grad", "grad_output", "grad_out", "return_hess", "hess_out", "out"}


def parameters(thing):
    skipped = ("self", "size_average", "reduce", "_stacklevel")
    every = inspect.signature(thing).parameters.values()
    return [each for each in every if each.name not in skipped]


def positional(thing):
    return [(p.name, p.default) for p in parameters(thing) if p.kind is not KEYWORD_ONLY]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in doctest.DocTestFinder(recurse=False).find(getattr(ct, name), name, globs={}):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
    assert runner.tries > 0


def test_every_name_of_arrays_is_here():
    numpy_only = {"__version__", "get_num_threads", "set_num_threads", "simd_level"}
    assert set(crossent.__all__) - numpy_only == set(ct.__all__) - {PARALLEL}


def test_every_loss_is_among_the_cases():
    losses = {name for name, _ in crossent._core.losses()}
    assert losses <= {case.function for case in CASES.values()}


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(TF, name)])
def test_functions_have_torchs_signatures(name):
    try:
        theirs = positional(getattr(TF, name))
    except ValueError:
        pytest.skip("torch's is built in")
    if name in ("softmax", "log_softmax"):
        theirs = [("input", inspect.Parameter.empty), ("dim", inspect.Parameter.empty)]
    assert positional(getattr(ct, name)) == theirs


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(torch.nn, name)])
def test_modules_have_torchs_signatures(name):
    ours, theirs = getattr(ct, name), getattr(torch.nn, name)
    assert positional(ours) == positional(theirs)
    assert positional(ours.forward) == positional(theirs.forward)


@pytest.mark.parametrize(
    "name",
    [n for n in NAMES
     if n not in ("softmax", "log_softmax", "logsumexp", "TokenLogProb", PARALLEL)],
)  # fmt: skip
def test_options_are_those_of_arrays(name):
    ours = {p.name: p.default for p in parameters(getattr(ct, name))}
    theirs = {p.name: p.default for p in parameters(getattr(crossent, name))}
    ours.pop("inplace_grad", None)
    for gone in GRADIENTS:
        theirs.pop(gone, None)
    # By text: a NaN is not itself.
    assert {k: str(v) for k, v in ours.items()} == {k: str(v) for k, v in theirs.items()}
