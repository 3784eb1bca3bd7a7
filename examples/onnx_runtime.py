"""A model in ONNX Runtime, its logits evaluated where they lie.

Handwritten digits, a network of two layers: its weights are fitted here with crossent and NumPy, it
is written as an ONNX model, and ONNX Runtime runs it. What that returns is a NumPy array over the
runtime's own buffer, and crossent reads it there: no framework, and no copy.

    python examples/onnx_runtime.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnxruntime
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import crossent.functional as F
from crossent.evaluation import Evaluation

Array = NDArray[Any]

HIDDEN, CLASSES = 64, 10
TEST_EVERY = 4
RATE, KEPT = 0.2, 0.9
# ONNX Runtime reads models up to its own version, and older ones for ever.
OPSET, IR_VERSION = 17, 8


def data() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Images of 64 numbers and their digits, to learn from and to test with."""
    digits = load_digits()
    images, targets = (digits.data / 16).astype(np.float32), digits.target
    test = np.arange(len(targets)) % TEST_EVERY == 0
    return (images[~test], targets[~test]), (images[test], targets[test])


def fit(images: Array, targets: Array, epochs: int) -> list[Array]:
    """Weights and biases, by gradient descent with momentum on all images at once."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        made: Array = rng.standard_normal(shape, np.float32)
        made *= np.sqrt(2 / shape[0])
        return made

    weights: list[Array] = [
        normal(images.shape[1], HIDDEN),
        np.zeros(HIDDEN, np.float32),
        normal(HIDDEN, CLASSES),
        np.zeros(CLASSES, np.float32),
    ]
    speeds = [np.zeros_like(weight) for weight in weights]
    for _ in range(epochs):
        first, first_bias, second, second_bias = weights
        hidden = np.maximum(images @ first + first_bias, 0)
        logits = hidden @ second + second_bias
        # The gradient overwrites the logits.
        F.cross_entropy(logits, targets, grad_out=logits)
        back = (logits @ second.T) * (hidden > 0)
        gradients = [images.T @ back, back.sum(0), hidden.T @ logits, logits.sum(0)]
        for weight, speed, gradient in zip(weights, speeds, gradients, strict=True):
            speed *= KEPT
            speed -= RATE * gradient
            weight += speed
    return weights


def write(path: Path, weights: list[Array]) -> None:
    """The network as an ONNX model, of any number of images at a time."""
    names = ["first", "first_bias", "second", "second_bias"]
    helper = onnx.helper
    nodes = [
        helper.make_node("Gemm", ["images", "first", "first_bias"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "second", "second_bias"], ["logits"]),
    ]
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", number, ["rows", len(weights[0])])],
        [helper.make_tensor_value_info("logits", number, ["rows", CLASSES])],
        [onnx.numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=100, help="images at a time")
    options = parser.parse_args()

    learned, test = data()
    weights = fit(*learned, options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        write(path, weights)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    images, targets = test
    evaluation = Evaluation(top_k=(1, 2), per_class=True)
    for start in range(0, len(targets), options.rows):
        rows = slice(start, start + options.rows)
        # A value of the runtime, and an array over its memory.
        feed = {"images": images[rows]}
        (value,) = session.run_with_ort_values(
            ["logits"],
            {name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in feed.items()},
        )
        logits = np.from_dlpack(Exported(value))
        evaluation.update(logits, targets[rows])
        if start == 0:
            # crossent reads any array where it lies; and this one lies in the runtime.
            at = logits.__array_interface__["data"][0]
            shared = np.shares_memory(logits, np.from_dlpack(Exported(value)))
            print(f"the logits are the runtime's own memory: {at == value.data_ptr() and shared}")

    # The same network in NumPy, in float64.
    first, first_bias, second, second_bias = (weight.astype(np.float64) for weight in weights)
    exact = np.maximum(images @ first + first_bias, 0) @ second + second_bias
    want = F.cross_entropy(exact, targets)
    print(f"cross-entropy {evaluation.cross_entropy:.6f} nats, of the same network in NumPy "
          f"{want:.6f}")  # fmt: skip
    print(f"accuracy {evaluation.accuracy:.2%}, top-2 {evaluation.top_k(2):.2%}, "
          f"calibration error {evaluation.expected_calibration_error:.2%}")  # fmt: skip
    classes = evaluation.by_class()
    hardest = int(np.argmax(classes["cross_entropy"]))
    print(f"the hardest digit: {hardest}, {classes['cross_entropy'][hardest]:.3f} nats, "
          f"accuracy {classes['accuracy'][hardest]:.2%}")  # fmt: skip
    if not abs(evaluation.cross_entropy / want - 1) < 1e-4:
        print("error: the networks differ", file=sys.stderr)
        return 1
    return 0


class Exported:
    """A runtime's value, for `np.from_dlpack`."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __dlpack__(self, **_: Any) -> Any:
        return self._value._ortvalue.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


if __name__ == "__main__":
    sys.exit(main())
