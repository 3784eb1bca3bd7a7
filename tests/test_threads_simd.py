"""The same bits at any number of threads; the same bars on every instruction set."""

import concurrent.futures

import numpy as np
import pytest
import reference
from reference import assert_result, assert_within
from subprocesses import run

import crossent
import crossent.functional as F
from crossent import _core

LEVELS = ["baseline", "avx2", "avx512"]
NATIVE = crossent.simd_level()

# (shape, class axis, input type, target): large enough to be split among threads.
LARGE = [
    ((4096, 1000), 1, "float32", "index"),
    ((1000, 1000), 1, "float64", "index"),
    ((2000, 1000), 1, "float16", "index"),
    ((2000, 1000), 1, "bfloat16", "index"),
    ((1000, 1000), 1, "float32", "probabilities"),
    ((40, 50257), 1, "float32", "index"),
    ((3, 400_001), 1, "float32", "index"),
    ((2, 400_001), 1, "float64", "probabilities"),
    ((1_000_003,), 0, "float32", "index"),
    ((8, 21, 96, 96), 1, "float32", "index"),
    ((1, 19, 300, 301), 1, "float64", "index"),
    ((8, 21, 64, 64), 1, "float32", "probabilities"),
    ((300_007, 3), 1, "float32", "index"),
    ((10, 200_003), 0, "float32", "index"),
    ((100, 300, 40), 2, "float32", "index"),
    ((1000, 300), 0, "float32", "index"),
]


@pytest.fixture(autouse=True)
def restore_threads():
    before = crossent.get_num_threads()
    yield
    crossent.set_num_threads(before)


def draw(rng, shape, axis, dtype, kind):
    x = rng.standard_normal(shape, np.float32)
    x *= 5
    x = x.astype(reference.np.dtype(dtype))
    if kind == "probabilities":
        q = rng.random(shape, np.float32)
        q /= np.sum(q, axis=axis, keepdims=True)
        return x, q.astype(x.dtype)
    y = np.asarray(rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :]))
    if y.size > 1:
        y.flat[::7] = -100
    return x, y


@pytest.mark.parametrize("shape, axis, dtype, kind", LARGE, ids=str)
def test_the_same_bits_at_any_number_of_threads(shape, axis, dtype, kind, rng):
    x, target = draw(rng, shape, axis, dtype, kind)
    weight = rng.uniform(0.5, 2, shape[axis]).astype(x.dtype)
    plain = {"axis": axis}
    rich = {"axis": axis, "reduction": "sum", "label_smoothing": 0.1, "weight": weight}
    seen = {}
    for threads in (1, 2, 3, 7):
        crossent.set_num_threads(threads)
        assert crossent.get_num_threads() == threads
        plain_results = F.cross_entropy(x, target, return_grad=True, return_hess=True, **plain)
        rich_results = F.cross_entropy(x, target, return_grad=True, **rich)
        inplace = x.copy()
        alone = [F.cross_entropy(x, target, **options) for options in (plain, rich)]
        results = {
            "loss alone": alone,
            "mean": plain_results,
            "sum": rich_results,
            "none": [np.asarray(F.cross_entropy(x, target, axis=axis, reduction="none"))],
            "in place": F.cross_entropy(inplace, target, grad_out=inplace, **plain),
            "softmax": [F.softmax(x, axis), F.log_softmax(x, axis), F.logsumexp(x, axis)],
        }
        results["entropy"] = F.entropy_with_logits(x, axis=axis, return_grad=True)
        results["its Hessian"] = F.entropy_with_logits(
            np.where(x < -8, -np.inf, x), axis=axis, temperature=1.5, return_hess=True
        )
        results["warped"] = F.cross_entropy(
            x, target, axis=axis, temperature=1.5, softcap=20.0, return_grad=True
        )
        if kind == "index":
            results["nll"] = F.nll_loss(x, target, return_grad=True, **plain)
            results["token"] = F.token_log_prob(
                x, np.maximum(target, 0), axis=axis, return_grad=True
            )
        for name, arrays in results.items():
            blob = [np.asarray(array).tobytes() for array in arrays]
            assert seen.setdefault(name, blob) == blob, f"{name} at {threads} threads"
    want = reference.cross_entropy(x, target, **plain)
    bar = 2 if dtype != "float64" else 3
    for loss in (plain_results[0], alone[0]):
        assert_within(np.asarray(loss), want.loss, bar)
    assert_within(plain_results[1], want.grad, reference.GRAD_BAR[dtype], want.scale)
    assert_within(plain_results[2], want.hess, reference.HESS_BAR[dtype])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(700, 301), (3, 90_001), (200_001, 2)], ids=str)
def test_the_same_bits_of_every_loss_at_any_number_of_threads(shape, dtype, rng):
    """Of those without class indices; the numbers of all are tested elsewhere, by one call each."""
    x, z = ((rng.standard_normal(shape) * 4).astype(dtype) for _ in range(2))
    p, q = (rng.random(shape).astype(dtype) for _ in range(2))
    p[::5], q[::7] = 0, 0
    grad = {"return_grad": True}
    both = {"return_grad": "both", "axis": 1}
    hess = {**grad, "return_hess": True}
    calls = {
        "probabilities": lambda: F.binary_cross_entropy(p, q, **grad),
        "with logits": lambda: F.binary_cross_entropy_with_logits(x, q, pos_weight=p, **hess),
        "focal": lambda: F.sigmoid_focal_loss(x, np.round(q), reduction="mean", **hess),
        "soft margin": lambda: F.soft_margin_loss(x, 2 * np.round(q) - 1, **hess),
        "multi-label": lambda: F.multilabel_soft_margin_loss(x, q, **hess),
        "kl_div": lambda: F.kl_div(x, q, "sum", **grad),
        "entropy": lambda: F.entropy(p, axis=1, base=2, **grad),
        "binary entropy": lambda: F.binary_entropy(p, **grad),
        "entropy of logits": lambda: F.entropy_with_logits(x, base=3, **hess),
        "kl": lambda: F.kl_divergence(p, q, **both),
        "js": lambda: F.js_divergence(p, q, **both),
        "kl of logits": lambda: F.kl_divergence_with_logits(x, z, softcap=9.0, **both),
        "js of logits": lambda: F.js_divergence_with_logits(x, z, **both),
        "sigmoids": lambda: (F.sigmoid(x), F.logsigmoid(x)),
    }
    for name, call in calls.items():
        crossent.set_num_threads(1)
        want = [np.asarray(part).tobytes() for part in call()]
        for threads in (2, 5):
            crossent.set_num_threads(threads)
            got = [np.asarray(part).tobytes() for part in call()]
            assert got == want, f"{name} at {threads} threads"


def small_calls(rng):
    """Small calls of every kind, with numbers among their inputs that stay in what they touch."""
    rows, classes = int(rng.integers(1, 40)), int(rng.choice([1, 2, 3, 10, 70, 90]))
    dtype = rng.choice(["float32", "float64"])
    x, q = rng.standard_normal((rows, classes)) * 3, rng.random((rows, classes))
    if rng.random() < 0.5:
        x.flat[rng.integers(x.size, size=3)] = rng.choice([np.nan, np.inf, -np.inf, 1e30], 3)
    x, q = x.astype(dtype), q.astype(dtype)
    y, t = rng.integers(0, classes, rows), (q > 0.5).astype(dtype)
    options = [{}, {"return_grad": True}, {"return_hess": True}][rng.integers(3)]
    grad = {} if "return_hess" in options else options
    own = {"sample_weight": rng.choice([0, 1, 2.5], rows)} if rng.random() < 0.3 else {}
    return [
        lambda: F.cross_entropy(x, y, reduction="none", **options, **own),
        lambda: F.cross_entropy(x, y, label_smoothing=0.1, z_loss=1e-3, **options),
        lambda: F.cross_entropy(x, q, reduction="sum", **options),
        lambda: F.cross_entropy(x.T, y[:1].repeat(classes) % rows, **options),
        lambda: F.nll_loss(x, y, reduction="none", **grad, **own),
        lambda: F.entropy_with_logits(x, **options),
        lambda: F.entropy_with_logits(x, temperature=1.5, class_mask=x < 3, **options),
        lambda: F.token_log_prob(x, y, **grad),
        lambda: F.kl_divergence_with_logits(x, q, **grad),
        lambda: F.js_divergence_with_logits(x, q, **grad),
        lambda: F.log_softmax(x, 1),
        lambda: F.softmax(x, 0),
        lambda: F.binary_cross_entropy_with_logits(x, t, reduction="none", **options),
        lambda: F.multilabel_soft_margin_loss(x, t, reduction="none", **options),
        lambda: F.sigmoid_focal_loss(x, q, reduction="none", **options),
        lambda: F.soft_margin_loss(x, 2 * t - 1, "none", **options),
        lambda: F.kl_div(x, q, "none", **grad),
        lambda: F.entropy(q, axis=1, **grad),
        lambda: F.js_divergence(q, q[::-1], **grad),
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nothing_of_an_earlier_call_remains(rng):
    """A thread keeps the memory of small calls: a new thread has none."""

    def leaves(answer):
        return [np.asarray(a) for a in (answer if isinstance(answer, tuple) else (answer,))]

    for _ in range(150):
        calls = small_calls(rng)
        for i in rng.permutation(len(calls))[:6]:
            used = leaves(calls[i]())
            with concurrent.futures.ThreadPoolExecutor(1) as new:
                fresh = leaves(new.submit(calls[i]).result())
            for a, b in zip(used, fresh, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"call {i}")
                signs = np.signbit(a) == np.signbit(b)
                assert np.all(signs | np.isnan(a)), f"call {i}"


@pytest.mark.parametrize("shape", [(64, 40_000), (300_000, 9), (3, 9, 300, 300)], ids=str)
def test_the_same_bits_in_new_and_in_used_memory(shape, rng):
    """Large outputs are written past the caches, but for memory that was never written."""
    x = rng.standard_normal(shape).astype(np.float32)
    y = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    t = rng.random(shape).astype(np.float32)
    used = np.ones_like(x)
    strided = np.ones((*shape[:-1], shape[-1] + 3), np.float32)[..., :-3]
    for function, target in (
        (F.cross_entropy, y),
        (F.cross_entropy, F.softmax(t, 1)),
        (F.binary_cross_entropy_with_logits, t),
    ):
        loss, new = function(x, target, return_grad=True)
        want_loss, _ = function(x.astype(np.float64), target, return_grad=True)
        np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
        for out in (used, strided):
            assert function(x, target, grad_out=out)[0] == loss
            np.testing.assert_array_equal(out, new)
    np.testing.assert_array_equal(F.softmax(x, 1), F.softmax(x, 1, out=used))


def test_the_floors_move_every_byte(rng):
    """What speed is measured against."""
    for size in (1, 100, 1_000_003):
        x = rng.standard_normal(size).astype(np.float32)
        out = np.full_like(x, 7)
        assert _core._read_floor(x) == max(x.max(), 0)
        _core._copy_floor(x, out)
        np.testing.assert_array_equal(out, x)


def test_this_level_is_known():
    assert NATIVE in LEVELS


@pytest.mark.parametrize("level", LEVELS[: LEVELS.index(NATIVE) + 1])
def test_calls_at_random_on_every_instruction_set(level):
    """The properties of `make fuzz-python`, a few times each."""
    done = run("fuzz.py", "--examples", "60", CROSSENT_SIMD=level)
    assert done.returncode == 0, done.stdout + done.stderr
    count, reached = done.stdout.split()
    assert reached == level
    assert int(count) > 300


@pytest.mark.parametrize("level", [None, *LEVELS[:-1]])
def test_every_instruction_set(level):
    environment = {} if level is None else {"CROSSENT_SIMD": level}
    done = run("battery.py", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    want = NATIVE if level is None else LEVELS[min(LEVELS.index(level), LEVELS.index(NATIVE))]
    assert done.stdout.split()[-1] == want


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_from_the_environment(threads):
    done = run(
        "import crossent; print(crossent.get_num_threads())", CROSSENT_NUM_THREADS=str(threads)
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == threads


def test_many_python_threads_at_once(rng):
    cases = []
    for seed, shape in enumerate([(500, 1000), (4, 21, 64, 64), (5, 60_001), (50_000, 3)] * 4):
        x, y = draw(np.random.default_rng(seed), shape, 1, "float32", "index")
        cases.append((x, y))
    alone = [F.cross_entropy(x, y, return_grad=True) for x, y in cases]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = pool.map(lambda case: F.cross_entropy(*case, return_grad=True), cases)
            for got, want in zip(together, alone, strict=True):
                assert got[0].tobytes() == want[0].tobytes()
                assert got[1].tobytes() == want[1].tobytes()
    for (x, y), got in list(zip(cases, alone, strict=True))[:4]:
        assert_result(got, reference.cross_entropy(x, y))


def test_small_calls_stay_on_their_thread():
    script = (
        "import numpy as np, os, crossent, crossent.functional as F\n"
        "crossent.set_num_threads(4)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "F.cross_entropy(np.zeros((100, 100)), np.zeros(100, int))\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
        "F.cross_entropy(np.zeros((1000, 1000)), np.zeros(1000, int))\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    done = run(script)
    assert done.stdout.split() == ["0", "3"], done.stdout + done.stderr


def test_changing_threads_while_others_compute(rng):
    x, y = draw(rng, (2000, 500), 1, "float32", "index")
    want = F.cross_entropy(x, y, return_grad=True)
    assert_result(want, reference.cross_entropy(x, y))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(F.cross_entropy, x, y, return_grad=True) for _ in range(40)]
        for threads in (1, 3, 2, 7, 1, 4):
            crossent.set_num_threads(threads)
        for future in futures:
            loss, grad = future.result(timeout=120)
            assert loss == want[0]
            assert grad.tobytes() == want[1].tobytes()
