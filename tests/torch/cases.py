"""What the tests of crossent.torch run over: each public function, with its options."""

import torch

from crossent import torch as ct
from crossent.torch import _ops


class Case:
    """`make(dtype)` gives the tensors that are differentiated; `f` is a function of them."""

    def __init__(self, function, f, make):
        self.function, self.f, self.make = function, f, make


def by_formulas(monkeypatch):
    """Everything by the composed formulas from here on."""
    monkeypatch.setattr(_ops.Operator, "composes", lambda *_: True)
    monkeypatch.setattr(_ops, "_kernels", lambda _: False)


def generator(name):
    return torch.Generator().manual_seed(sum(name.encode()))


def _cases():
    out = {}

    def add(name, function, inputs, **options):
        def make(dtype=torch.float64):
            g = generator(name)
            return tuple(each(g).to(dtype) for each in inputs)

        def f(*x):
            here = {k: v.to(x[0].device) if torch.is_tensor(v) else v for k, v in options.items()}
            return getattr(ct, function)(*x, **here)

        out[name] = Case(function, f, make)

    def normal(*shape):
        return lambda g: torch.randn(*shape, generator=g, dtype=torch.float64) * 2

    def probabilities(*shape):
        return lambda g: torch.rand(*shape, generator=g, dtype=torch.float64) * 0.9 + 0.05

    g = generator("targets")

    def classes(*shape, high=4):
        return torch.randint(0, high, shape, generator=g)

    def rand(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64) + 0.1

    x = normal(5, 4)
    for reduction in ("mean", "sum", "none"):
        ends = {"reduction": reduction}
        add(f"ce {reduction}", "cross_entropy", [x], target=classes(5), **ends)
        add(
            f"ce options {reduction}", "cross_entropy", [normal(2, 4, 3)], target=classes(2, 3),
            weight=rand(4), ignore_index=1, label_smoothing=0.2, z_loss=0.1, **ends,
        )  # fmt: skip
        add(
            f"ce sample weight {reduction}", "cross_entropy", [x], target=classes(5),
            weight=rand(4), sample_weight=torch.tensor([1.0, 0.0, 2.0, 0.5, 3.0]), **ends,
        )  # fmt: skip
        soft = rand(5, 4)
        add(f"ce soft {reduction}", "cross_entropy", [x], target=soft, **ends)
        add(
            f"ce soft options {reduction}", "cross_entropy", [x], target=soft, weight=rand(4),
            label_smoothing=0.1, sample_weight=torch.tensor([1.0, 0.0, 2.0, 0.5, 3.0]), **ends,
        )  # fmt: skip
        add(f"nll {reduction}", "nll_loss", [x], target=classes(5), weight=rand(4), **ends)
        add(
            f"bce {reduction}", "binary_cross_entropy", [probabilities(5, 4)], target=rand(5, 4),
            weight=rand(4), **ends,
        )  # fmt: skip
        add(
            f"bce logits {reduction}", "binary_cross_entropy_with_logits", [x], target=rand(5, 4),
            weight=rand(5, 1), pos_weight=rand(4), sample_weight=rand(5, 4), **ends,
        )  # fmt: skip
        add(f"focal {reduction}", "sigmoid_focal_loss", [x], targets=rand(5, 4), **ends)
        add(
            f"multilabel {reduction}", "multilabel_soft_margin_loss", [x], target=rand(5, 4),
            weight=rand(4), **ends,
        )  # fmt: skip
        signs = torch.where(rand(5, 4) > 0.6, 1, -1)
        add(f"soft margin {reduction}", "soft_margin_loss", [x], target=signs, **ends)
        add(f"kl_div {reduction}", "kl_div", [x], target=rand(5, 4), **ends)
    add("kl_div batchmean", "kl_div", [x], target=-rand(5, 4), reduction="batchmean",
        log_target=True)  # fmt: skip
    add("kl_div bits", "kl_div", [x], target=rand(5, 4), base=2)
    add("ce one row", "cross_entropy", [normal(4)], target=torch.tensor(2))
    add("ce last axis", "cross_entropy", [normal(2, 3, 4)], target=classes(2, 3), axis=-1)
    add("ce denominator", "cross_entropy", [x], target=classes(5), denominator=3.0)
    add("ce nothing", "cross_entropy", [x], target=torch.full((5,), -100), empty=0.0)
    weightless = {"weight": torch.zeros(4), "label_smoothing": 0.1, "z_loss": 0.1}
    add("ce weightless", "cross_entropy", [x], target=classes(5), empty=0.5, **weightless)
    mask = torch.tensor([True, True, True, False])
    warp = {"temperature": 1.5, "softcap": 3.0, "class_mask": mask}
    add("ce warp", "cross_entropy", [x], target=classes(5, high=3), **warp)
    add("focal plain", "sigmoid_focal_loss", [x], targets=rand(5, 4), alpha=-1, gamma=1.5)
    p = probabilities(3, 4)
    add("entropy", "entropy", [p], axis=0, base=2)
    add("binary entropy", "binary_entropy", [p])
    add("entropy logits", "entropy_with_logits", [x])
    add("entropy logits warp", "entropy_with_logits", [x], base=2, **warp)
    for kind in ("kl", "js"):
        add(f"{kind} divergence", f"{kind}_divergence", [p, probabilities(3, 4)], base=2)
        add(f"{kind} logits", f"{kind}_divergence_with_logits", [x, normal(5, 4)])
        add(f"{kind} logits warp", f"{kind}_divergence_with_logits", [x, normal(5, 4)], **warp)
    for name in ("softmax", "log_softmax", "logsumexp"):
        add(name, name, [x], dim=1)
        add(f"{name} warp", name, [x], dim=-1, temperature=0.7, softcap=2.0)
    add("sigmoid", "sigmoid", [x])
    add("logsigmoid", "logsigmoid", [x])
    add("tokens", "token_log_prob", [x], target=classes(5))
    tokens = out["tokens"]
    whole = tokens.f
    tokens.f = lambda *x: tuple(whole(*x))[:3]
    return out


CASES = _cases()
