"""The temperature that logits need, by Newton's method."""

from __future__ import annotations

import sys
from math import frexp, inf, ldexp, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import crossent.functional as F
from crossent._arguments import check_weights, number, plain

__all__ = ["fit_temperature"]

Array = NDArray[Any]

# Elements of a block of rows that is worked on at a time.
BLOCK = 1 << 18
# A step that is smaller, relatively, is the last.
TOLERANCE = 1e-12
ITERATIONS = 200
# Newton's method needs few steps, or (along an exponential, where each is as long) too many: from
# then on every other step halves what is between, on a scale of logarithms.
PATIENCE = 30
# A beta times a difference of at most two units is a float.
LARGEST = 2.0**1000


def fit_temperature(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    bounds: tuple[float, float] = (0.0, inf),
) -> float:
    r"""The temperature $T$ of least cross-entropy of `logits / T`.

    With $\beta = 1 / T$ and $p = \mathrm{softmax}(\beta z)$, a row $z$ of target $y$ has the loss
    $L(\beta) = \log \sum_c e^{\beta z_c} - \beta z_y$, and

    $$L'(\beta) = \sum_c p_c z_c - z_y = \sum_c p_c (z_c - z_y), \qquad
      L''(\beta) = \sum_c p_c (z_c - z_y)^2 - L'(\beta)^2 .$$

    $L''$ is the variance of the logits under $p$: the loss is convex in $\beta$. The sum of the
    rows has at most one point where its derivative vanishes, and Newton's method finds it, kept
    between a $\beta$ on either side: where a step would leave them, their geometric mean is taken.
    The differences $z_c - z_y$ keep a common offset of a row out of both sums. They are divided by
    a power of two near the largest of them: logits of any size have squares that are floats.

    At the ends the derivative has limits, which tell whether there is such a point:

    - as $\beta \to \infty$, the sum of $\max_c z_c - z_y$. It is 0 if the target has a largest
      logit in every row (separable: no mistake). The loss then falls for ever, and the answer is
      $T = 0$, hard decisions;
    - as $\beta \to 0$, the sum of $\bar z - z_y$ with the row's mean $\bar z$. If it is not
      negative, the logits are no better than none, and the answer is $T = \infty$, equal
      probabilities;
    - where all logits of each row are equal, any $T$ is as good: the answer is 1.

    Arguments:
        logits: Logits, of a set that the model was not fitted to. -inf is a class that cannot be.
        target: Class indices; for one logit a row, 0 or 1.
        sample_weight: A weight a row, not negative.
        bounds: The least and the largest temperature that is allowed. The answer is the best
            between them: an end where the best lies beyond.

    Shape:
        - logits: (N, K); (N) for the logit of the second of two classes.
        - target, sample_weight: (N).

    Returns:
        The temperature, 0 and infinity included if `bounds` allow them.

    Errors:
        TypeError: logits or weights are not real numbers; targets are not integers; a masked array.
        ValueError: shapes do not fit; there is no row of positive weight; a logit is NaN or +inf,
            or that of a row's target -inf; a weight is negative, NaN or infinite; the bounds are
            not in order.
        IndexError: a target is not a class.

    Example:
        >>> import numpy as np
        >>> from crossent.sklearn import fit_temperature
        >>> # A logit of log 9 says 90 %; 3 of 4 such rows came true, which is log 3.
        >>> round(fit_temperature(np.full(4, np.log(9)), [1, 1, 1, 0]), 12)
        2.0
        >>> fit_temperature([[2.0, 1.0], [0.0, 3.0]], [0, 1])
        0.0

    Reference:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017).
    """
    if np.shape(bounds) != (2,):
        raise TypeError(f"bounds must be two numbers, got {bounds!r}")
    low, high = (number("bounds", bound) for bound in bounds)
    if not 0.0 <= low <= high:
        raise ValueError(f"bounds must be 0 <= low <= high, got {bounds}")
    rows = _Rows(logits, target, sample_weight)

    hottest, coldest = rows.slopes_at_ends()
    if hottest == coldest == 0.0:
        best = 1.0
    elif coldest <= 0.0:
        best = 0.0
    elif hottest >= 0.0:
        best = inf
    else:
        best = rows.temperature(_newton(rows))
    return min(max(best, low), high)


def _reals(name: str, values: ArrayLike) -> Array:
    """Numbers as floats of the type that they have, or of float64."""
    array = plain(name, values)
    if array.dtype.kind == "f":
        return array
    # Integers, and floats that NumPy does not call so, as bfloat16.
    if array.dtype.kind == "b" or not np.can_cast(array.dtype, np.float64):
        raise TypeError(f"{name} must be an array of real numbers, got {array.dtype}")
    return array.astype(np.float64)


class _Rows:
    """Logits and their targets, as `L'` and `L''` need them."""

    def __init__(
        self, logits: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None
    ) -> None:
        z = _reals("logits", logits)
        y = plain("target", target)
        if z.ndim not in (1, 2):
            raise ValueError(f"logits must have one or two dimensions, got {z.ndim}")
        if y.dtype.kind not in "iu":
            raise TypeError(f"target must be class indices, got {y.dtype}")
        if y.shape != z.shape[:1]:
            raise ValueError(f"target must have shape {z.shape[:1]}, one a row, got {y.shape}")
        classes = 2 if z.ndim == 1 else z.shape[1]
        strange = (y < 0) | (y >= classes)
        if strange.any():
            row = int(strange.argmax())
            raise IndexError(f"target[{row}] = {y[row]} is out of range for {classes} classes")
        self.logits, self.target, self.classes = z, y, classes
        self.weight: Array | None = None
        if sample_weight is not None:
            weight = _reals("sample_weight", sample_weight).astype(np.float64)
            if weight.shape != y.shape:
                raise ValueError(f"sample_weight must have shape {y.shape}, got {weight.shape}")
            check_weights("sample_weight", weight)
            # A row of weight 0 is not there, whatever its logits.
            live = weight > 0
            # Of the largest, so that no sum overflows.
            weight = weight / weight.max(initial=sys.float_info.min)
            self.weight = weight
            if not live.all():
                self.logits, self.target, self.weight = z[live], y[live], weight[live]
        if len(self.target) == 0:
            raise ValueError("logits must have a row of positive weight")
        # Powers of two: scaling is exact. Half of any two logits has a finite difference.
        self.shrink, self.unit = 1.0, 1.0
        with np.errstate(over="ignore"):
            largest = self._largest()
        if largest == inf:
            self.shrink = 0.5
            largest = self._largest()
        if largest > 0.0:
            self.unit = ldexp(1.0, frexp(largest)[1] - 1)

    def _largest(self) -> float:
        """The largest absolute difference between a possible class's logit and the target's."""
        return max(float(np.abs(z).max(initial=0.0, where=there)) for z, there, _ in self.parts())

    def temperature(self, beta: float) -> float:
        """Of the logits as given, from the beta of what `blocks` gives."""
        return self.unit / beta / self.shrink

    def blocks(self) -> Any:
        """Of a block of rows: what each logit has above the target's, in units, and the weights."""
        for z, _, weight in self.parts():
            yield z / self.unit, weight

    def parts(self) -> Any:
        """Of a block of rows: what each logit has above the target's, where it can be, weights."""
        size = max(1, BLOCK // self.classes)
        for start in range(0, len(self.target), size):
            part = slice(start, start + size)
            z = self.logits[part].astype(np.float64)
            if z.ndim == 1:
                z = np.stack([np.zeros_like(z), z], axis=1)
            own = np.take_along_axis(z, self.target[part, None].astype(np.intp), axis=1)
            if not np.isfinite(own).all() or not (z < inf).all():
                raise ValueError("logits must not be NaN or +inf, nor that of a target -inf")
            there = z > -inf
            z *= self.shrink
            z -= own * self.shrink
            yield z, there, None if self.weight is None else self.weight[part]

    @staticmethod
    def _sum(rows: Array, weight: Array | None) -> float:
        return float(rows.sum() if weight is None else rows @ weight)

    def slopes_at_ends(self) -> tuple[float, float]:
        """The limits of L' at beta = 0 and at infinity."""
        hot = cold = 0.0
        for z, weight in self.blocks():
            there = z > -inf
            mean = np.where(there, z, 0.0).sum(axis=1) / there.sum(axis=1)
            hot += self._sum(mean, weight)
            cold += self._sum(z.max(axis=1), weight)
        return hot, cold

    def slopes(self, beta: float) -> tuple[float, float]:
        """L' and L'' of the sum of the rows."""
        first = second = 0.0
        for z, weight in self.blocks():
            p = F.softmax(z * beta, axis=1)
            # A class that cannot be has p = 0.
            z[z == -inf] = 0.0
            by_row = np.einsum("ij,ij->i", p, z)
            squares = np.einsum("ij,ij,ij->i", p, z, z)
            first += self._sum(by_row, weight)
            second += self._sum(squares - by_row * by_row, weight)
        return first, second


def _between(below: float, above: float, beta: float) -> float:
    """A beta between these, at an end of which `beta` is."""
    # Squared, an end that is far away is found in a few steps.
    if above == inf:
        return min(max(4.0 * beta, beta * beta), LARGEST)
    if not below:
        return max(min(beta / 4.0, beta * beta), 1.0 / LARGEST)
    return sqrt(below) * sqrt(above)


def _newton(rows: _Rows) -> float:
    """The beta at which L' vanishes; it is known to be there, and L' to rise."""
    below, above, beta = 0.0, inf, 1.0
    for step in range(ITERATIONS):
        first, second = rows.slopes(beta)
        if first < 0.0:
            below = beta
        elif first > 0.0:
            above = beta
        else:
            break
        new = beta - first / second if second > 0.0 else -1.0
        impatient = step > PATIENCE and step % 2
        if impatient or not below < new < min(above, LARGEST):
            new = _between(below, above, beta)
        done = abs(new - beta) <= TOLERANCE * beta
        beta = new
        if done:
            break
    return beta
