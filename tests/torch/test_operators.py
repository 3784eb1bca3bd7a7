"""The operators as torch sees them: schemas, shapes without data, compilers, transforms."""

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as TF
from cases import CASES
from torch.utils.checkpoint import checkpoint

from crossent import torch as ct
from crossent.torch import _ops

SOME = [
    "ce mean", "ce options none", "ce soft options sum", "ce one row", "ce last axis", "nll mean",
    "bce none", "bce logits mean", "multilabel none", "kl_div batchmean", "entropy",
    "binary entropy", "entropy logits warp", "kl divergence", "js logits warp", "softmax warp",
    "logsumexp", "logsigmoid", "tokens",
]  # fmt: skip
OPERATORS = [each for each in vars(_ops).values() if isinstance(each, _ops.Operator)]


@pytest.fixture
def called(monkeypatch):
    """The operators called, with their arguments; each call goes through the dispatcher."""
    calls = []

    def note(op):
        def call(*arguments):
            calls.append((op, arguments))
            return op(*arguments)

        return call

    monkeypatch.setattr(_ops, "ordinary", lambda: False)
    for each in OPERATORS:
        monkeypatch.setattr(each, "op", note(each.op))
    for name in ("_softmax", "_sigmoid", "_token"):
        monkeypatch.setattr(_ops, name, note(getattr(_ops, name)))
    return calls


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(name, dtype, called):
    case = CASES[name]
    case.f(*[x.requires_grad_() for x in case.make(dtype)])
    ((op, arguments),) = called
    torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)], ids=str)
@pytest.mark.parametrize("large", [0, 1 << 22], ids=["large", ""])
def test_opcheck_of_other_layouts(shape, large, called, monkeypatch):
    monkeypatch.setattr(_ops, "LARGE", large)
    x = torch.randn(*reversed(shape)).permute(*reversed(range(len(shape)))).requires_grad_()
    ct.cross_entropy(x, torch.zeros(5, *shape[2:], dtype=torch.int64), reduction="none")
    wide = torch.randn(5, 1, requires_grad=True).expand(5, 4)
    ct.cross_entropy(wide, torch.zeros(5, dtype=torch.int64))
    for op, arguments in list(called):
        torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_of_the_gradient_in_place():
    op = torch.ops.crossent.cross_entropy_inplace.default
    tensors = (torch.randn(5, 4), torch.arange(5) % 4, None, None, None)
    options = (-100, "mean", 0.0, 1, 1.0, None, 0.0, None, float("nan"))
    torch.library.opcheck(op, tensors + options, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_fake_tensors(case):
    want = case.f(*case.make(torch.float32))
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        got = case.f(*[mode.from_tensor(x) for x in case.make(torch.float32)])
    for fake, real in zip(
        got if isinstance(got, tuple) else (got,),
        want if isinstance(want, tuple) else (want,),
        strict=True,
    ):
        assert fake.shape == real.shape
        assert fake.dtype == real.dtype
        assert fake.stride() == real.stride()


def test_meta_device():
    x = torch.empty(5, 4, device="meta", requires_grad=True)
    loss = ct.cross_entropy(x, torch.empty(5, dtype=torch.int64, device="meta"))
    assert loss.is_meta
    assert loss.shape == ()
    loss.backward()
    assert x.grad.shape == x.shape


def calls():
    """Arguments of calls on the CPU, by the functions' names."""
    x, y = torch.randn(5, 4), torch.randint(0, 4, (5,))
    p, mask = torch.softmax(torch.randn(5, 4), 1), torch.ones(5, 4, dtype=torch.bool)
    return {
        "cross_entropy": {
            "input": x, "target": y, "weight": torch.ones(4), "sample_weight": torch.ones(5),
            "class_mask": mask,
        },
        "nll_loss": {"input": x, "target": y, "weight": torch.ones(4)},
        "binary_cross_entropy": {"input": p, "target": p * 1, "weight": p * 1},
        "binary_cross_entropy_with_logits": {"input": x, "target": p, "pos_weight": p * 1},
        "kl_div": {"input": x, "target": p},
        "kl_divergence_with_logits": {"p_logits": x, "q_logits": p, "class_mask": mask},
        "entropy_with_logits": {"logits": x, "class_mask": mask},
        "token_log_prob": {"input": x, "target": y, "class_mask": mask},
        "softmax": {"input": x, "dim": 1, "class_mask": mask},
    }  # fmt: skip


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("grad", [False, True])
def test_tensors_of_several_devices_are_refused(name, grad):
    call = calls()[name]
    first, *others = [key for key, value in call.items() if isinstance(value, torch.Tensor)]
    call[first].requires_grad_(grad)
    for other in others:
        given = {**call, other: call[other].to("meta")}
        with pytest.raises(RuntimeError, match="device"):
            getattr(ct, name)(**given)
    given = {**call, first: call[first].to("meta")}
    with pytest.raises(RuntimeError, match="device"):
        getattr(ct, name)(**given)
    if name == "cross_entropy":
        with pytest.raises(RuntimeError, match="target must be on the device of input, cpu, got"):
            ct.cross_entropy(call["input"] * 1, call["target"].to("meta"), inplace_grad=True)


COMPILED = [
    "ce options mean",
    "ce soft options none",
    "bce logits mean",
    "kl logits",
    "softmax warp",
]


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_compile(name, dtype):
    case = CASES[name]
    results = []
    torch.compiler.reset()
    for f in (case.f, torch.compile(case.f, fullgraph=True, backend="aot_eager")):
        x = tuple(each.requires_grad_() for each in case.make(dtype))
        out = f(*[each * 1 for each in x])
        results.append((out, *torch.autograd.grad(out.sum() * 3, x)))
    torch.testing.assert_close(results[0], results[1])


def test_compile_with_inductor():
    module = ct.CrossEntropyLoss(weight=torch.rand(7), label_smoothing=0.1, inplace_grad=True)
    linear = torch.nn.Linear(3, 7)

    def step(x, y):
        return module(linear(x), y)

    x, y = torch.randn(5, 3), torch.arange(5)
    step(x, y).backward()
    want = [p.grad for p in linear.parameters()]
    linear.zero_grad()
    torch.compile(step, fullgraph=True)(x, y).backward()
    torch.testing.assert_close([p.grad for p in linear.parameters()], want)


def test_export():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loss = ct.CrossEntropyLoss(weight=torch.rand(4))

        def forward(self, x, y):
            return self.loss(x, y), ct.entropy_with_logits(x)

    x, y = torch.randn(5, 4), torch.arange(5) % 4
    batch = torch.export.Dim("batch")
    model = Model()
    program = torch.export.export(model, (x, y), dynamic_shapes=({0: batch}, {0: batch}))
    x, y = torch.randn(9, 4), torch.arange(9) % 4
    torch.testing.assert_close(program.module()(x, y), model(x, y))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    linear = torch.nn.Linear(3, 4)
    x, y = torch.randn(5, 3), torch.arange(5) % 4
    with torch.autocast("cpu", dtype=dtype):
        logits = linear(x)
        assert logits.dtype == dtype
        loss = ct.cross_entropy(logits, y)
        losses = [
            ct.cross_entropy(logits, torch.softmax(logits, 1)),
            ct.binary_cross_entropy_with_logits(logits, torch.ones(5, 4)),
            ct.entropy_with_logits(logits).sum(),
        ]
    assert loss.dtype == torch.float32
    assert all(each.dtype == torch.float32 for each in losses)
    assert loss == ct.cross_entropy(logits.detach().float(), y)
    (loss + sum(losses)).backward()
    assert linear.weight.grad.isfinite().all()


SCALARS = [name for name in CASES if name.endswith(("mean", "sum"))]


@pytest.mark.parametrize("name", SCALARS)
def test_transforms(name):
    case = CASES[name]
    x = case.make()
    want = torch.autograd.functional.jacobian(case.f, x)[0]
    torch.testing.assert_close(torch.func.grad(case.f)(*x), want)
    stacked = torch.stack([x[0], x[0].flip(0) if "bce" in name else -x[0]])
    each = [torch.func.grad(case.f)(row) for row in stacked]
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(case.f))(stacked), torch.stack(each))
    _, along = torch.func.jvp(case.f, (x[0],), (torch.ones_like(x[0]),))
    torch.testing.assert_close(along, want.sum())


@pytest.mark.parametrize("name", ["ce mean", "kl logits", "softmax warp", "sigmoid", "tokens"])
def test_vmap_of_operators(name, called):
    """As where a compiler traces a transform."""
    case = CASES[name]
    x = [torch.stack([each, -each]) for each in case.make()]
    case.f(*[each[0] for each in x])
    ((op, arguments),) = called
    inputs = len(x)
    got = torch.vmap(lambda *given: op(*given, *arguments[inputs:]))(*x)
    want = case.f(*[each[1] for each in x])
    torch.testing.assert_close(
        got[0][1] if isinstance(got, tuple) else got[1], want[0] if name == "tokens" else want
    )


def test_compiled_transforms():
    x, y = torch.randn(5, 4), torch.arange(5) % 4
    for f in (
        torch.func.grad(ct.cross_entropy),
        torch.func.vmap(torch.func.grad(ct.cross_entropy)),
        torch.func.vmap(ct.cross_entropy),
    ):
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, y), f(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_many_upstream_gradients_at_once(dtype):
    """After the buffer was given away, too."""
    x, y = torch.randn(5, 4).to(dtype).requires_grad_(), torch.arange(5) % 4
    loss = ct.cross_entropy(x, y, reduction="none")
    many = torch.eye(5)
    want = torch.stack([torch.autograd.grad(loss, x, row, retain_graph=True)[0] for row in many])
    for _ in range(2):
        (got,) = torch.autograd.grad(loss, x, many, is_grads_batched=True, retain_graph=True)
        torch.testing.assert_close(got, want)
    fresh = ct.cross_entropy(x, y, reduction="none")
    (got,) = torch.autograd.grad(fresh, x, many, is_grads_batched=True)
    torch.testing.assert_close(got, want)


def test_saved_elsewhere():
    """Where checkpoints and hooks keep what backward needs."""
    x, y = torch.randn(5, 4), torch.arange(5) % 4
    want = torch.func.grad(ct.cross_entropy)(x, y)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    checkpoint(lambda a: ct.cross_entropy(a * 1, y), a, use_reentrant=False).backward()
    with torch.autograd.graph.save_on_cpu():
        loss = ct.cross_entropy(b, y)
    loss.backward()
    torch.testing.assert_close(a.grad, want)
    torch.testing.assert_close(b.grad, want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces_hold_no_results():
    x, y = torch.randn(5, 4), torch.arange(5) % 4
    traced = torch.jit.trace(lambda x: ct.cross_entropy(x, y), (x,))
    assert traced(-x) == ct.cross_entropy(-x, y)


def test_default_device():
    x, y = torch.randn(5, 4, requires_grad=True), torch.arange(5) % 4
    with torch.device("meta"):
        loss = ct.cross_entropy(x, y)
        tokens = ct.token_log_prob(x, y)
        (loss + tokens.log_prob.sum()).backward()
    assert not x.grad.is_meta


def test_inference_mode():
    with torch.inference_mode():
        x, y = torch.randn(5, 4), torch.arange(5) % 4
        assert ct.cross_entropy(x, y).is_inference()


def test_per_sample_gradients():
    x, y = torch.randn(6, 9), torch.arange(6)
    got = torch.func.vmap(torch.func.grad(ct.cross_entropy))(x, y)
    want = torch.func.vmap(torch.func.grad(TF.cross_entropy))(x, y)
    torch.testing.assert_close(got, want)


def test_threads():
    x, y = torch.randn(64, 1000), torch.arange(64)
    want = torch.autograd.grad(ct.cross_entropy(x.requires_grad_(), y), x)[0]
    found = []

    def work():
        for _ in range(20):
            z = x.detach().requires_grad_()
            ct.cross_entropy(z, y).backward()
            found.append(z.grad)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 80
    assert all(torch.equal(each, want) for each in found)


def test_backward_of_one_graph_by_threads():
    x, y = torch.randn(64, 1000, requires_grad=True), torch.arange(64)
    want = torch.autograd.grad(3 * ct.cross_entropy(x, y), x)[0]
    loss = 3 * ct.cross_entropy(x, y)
    found = []

    def work():
        found.append(torch.autograd.grad(loss, x, retain_graph=True)[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(torch.allclose(each, want) for each in found)


def test_copies():
    module = ct.CrossEntropyLoss(weight=torch.rand(4), class_mask=torch.ones(4, dtype=torch.bool))
    x, y = torch.randn(5, 4), torch.arange(5) % 4
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin(x, y) == module(x, y)
