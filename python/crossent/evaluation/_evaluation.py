"""What a model's predictions are worth: sums over rows, from which every measure is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from fractions import Fraction
from math import exp, inf, isnan, log, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent._arguments import number, whole
from crossent.evaluation._cells import WEIGHT, Cells
from crossent.evaluation._quantiles import Quantiles
from crossent.evaluation._sums import Integers, rounded
from crossent.evaluation._tokens import Batch, Reading

FORMAT, VERSION = "crossent.evaluation", 1
HIT = "top1"


class Token(NamedTuple):
    """A row, and what the model said of it.

    Example:
        >>> from crossent.evaluation import Token
        >>> Token(row=3, target=1, log_prob=-2.5, rank=4, entropy=1.5).rank
        4
    """

    row: int
    target: int
    log_prob: float
    rank: int
    entropy: float

    def order(self) -> tuple[bool, float, int]:
        """The least likely first, NaN before them; then by row."""
        unknown = isnan(self.log_prob)
        return (not unknown, 0.0 if unknown else self.log_prob, self.row)


class Evaluation:
    r"""Sums over the rows of any number of batches, from which every measure of a model is read.

    For rows of logits $x$ with $p = \mathrm{softmax}(x)$, targets $y$ and weights $w$ (1 without
    `sample_weight`), means over the rows that count, $\overline{a} = \sum w a / \sum w$:

    | measure | what it is |
    |---|---|
    | `cross_entropy`, `bits` | $L = \overline{-\log p_y}$ in nats, and $L / \log 2$ |
    | `perplexity` | $e^L$ |
    | `bits_per_byte` | $\sum w\,(-\log_2 p_y)$ over the bytes that the rows stand for |
    | `accuracy`, `top_k` | the share of rows with fewer than 1, or k, classes above the target |
    | `entropy` | $\overline{-\sum_c p_c \log p_c}$ in nats |
    | `kl_divergence` | $\overline{D(b \,\Vert\, p)}$ from a baseline $b$, in nats |
    | `expected_calibration_error` | $\sum_j (W_j / W) \lvert a_j - c_j \rvert$ over equal bins |

    Where the target shares the top with other classes, as it may in 16-bit types, it counts as
    often as a fair draw among them has it: $k / t$ of $t > k$ classes. A bin holds the rows with
    $\max_c p_c$ in $(j / B, (j + 1) / B]$, of accuracy $a_j$, mean confidence $c_j$ and weight
    $W_j$.

    What is held takes no more memory with more rows. Every number that a row brings is added
    exactly, and a measure is rounded once, when it is read: evaluations of parts, merged in any
    order, make that of the whole bit for bit.

    Arguments:
        kind: What the input is: `'logits'`, `'log_probabilities'` or `'probabilities'`. Of the
            last two each row is divided by its sum, which must be 1 to a thousandth (a tenth in
            16-bit types).
        ignore_index: The class index of rows that do not count.
        temperature: What logits are divided by.
        softcap: Logits become $c \tanh(x / c)$, before the division.
        top_k: The numbers of classes for which `top_k` is wanted.
        bins: The number of bins of confidence.
        per_class: Whether the sums are also held for each target class; see `by_class`.
        worst: How many of the least likely rows are held; see `worst_tokens`.

    Errors:
        TypeError, ValueError: an argument is not one of these.

    Example:
        >>> import numpy as np
        >>> from crossent.evaluation import Evaluation
        >>> evaluation = Evaluation(top_k=(2,))
        >>> evaluation.update(np.log([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3]]), [0, 2])
        >>> round(evaluation.perplexity, 12)
        2.581988897472
        >>> evaluation.accuracy, evaluation.top_k(2)
        (0.5, 1.0)

        Parts of the data, in any order, in any number of processes:

        >>> first, second = Evaluation(), Evaluation()
        >>> first.update(np.zeros((2, 4)), [0, 1])
        >>> second.update(np.eye(4), [0, 1, 2, 3])
        >>> second.merge(first).rows
        6

    Reference:
        Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (2017), for the
        calibration error.
    """

    def __init__(
        self,
        *,
        kind: str = "logits",
        ignore_index: int = -100,
        temperature: float = 1.0,
        softcap: float | None = None,
        top_k: Iterable[int] = (1, 5),
        bins: int = 15,
        per_class: bool = False,
        worst: int = 0,
    ) -> None:
        softcap = None if softcap is None else number("softcap", softcap)
        self._reading = Reading(
            kind,
            whole("ignore_index", ignore_index, None),
            number("temperature", temperature),
            softcap,
        )
        if not isinstance(top_k, Iterable):
            raise TypeError(f"top_k must be integers, got {type(top_k).__name__}")
        self._ks = tuple(sorted({1, *(whole("top_k", k, 1) for k in top_k)}))
        self._bins = whole("bins", bins, 1)
        self._per_class = bool(per_class)
        self._keep_worst = whole("worst", worst, 0)

        self._edges = np.linspace(0.0, 1.0, self._bins + 1)
        self._hits = tuple(f"top{k}" for k in self._ks)
        # Rows have a "kl" or "bytes" only where they were given one: what is divided by "kl_weight"
        # and "bytes" must be of these rows alone.
        self._columns = ("loss", "entropy", "confidence", *self._hits, "kl", "kl_weight", "bytes",
                         "byte_loss")  # fmt: skip
        self._classes: int | None = None
        self._seen = 0
        self._total = Cells(1, self._columns)
        self._calibration = Cells(self._bins, ("confidence", HIT))
        self._losses, self._kls = Quantiles(), Quantiles()
        self._by_class: Cells | None = None
        self._labels: list[int | str] = []
        self._by_group = Cells(0, self._columns)
        self._group_calibration = Cells(0, ("confidence", HIT))
        self._worst: list[Token] = []

    # What comes in

    def update(
        self,
        input: ArrayLike,
        target: ArrayLike,
        *,
        axis: int | None = None,
        baseline: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        byte_count: ArrayLike | None = None,
        group: ArrayLike | None = None,
        class_mask: ArrayLike | None = None,
        first_row: int | None = None,
    ) -> None:
        r"""Adds the rows of a batch. A batch that is refused changes nothing.

        Arguments:
            input: Logits, or what `kind` says, of any float type and strides, read where they lie;
                of probabilities the logarithm is taken first, into an array of that size.
            target: Class indices of any integer type.
            axis: The class axis; by default torch's: 1, or 0 of one-dimensional input.
            baseline: Logits (or what `kind` says) of another model for the same rows, whose
                distribution $b$ is compared with this one's, $D(b \,\Vert\, p)$: the base of a
                quantised model, say. `temperature`, `softcap` and `class_mask` apply to it, too.
            sample_weight: A weight a row; a row of weight 0 does not count.
            byte_count: How many bytes of text each row stands for, or all of the batch do. Those of
                a row that does not count are left out; one number counts whole. Rows of batches
                without it are left out of `bits_per_byte`.
            group: Labels of the groups that rows belong to, integers or strings, also those of an
                array of Python objects; see `by_group`.
            class_mask: Booleans that broadcast to the input's shape: False is a class that does not
                exist.
            first_row: The number of the first row, for `worst_tokens`; by default how many rows
                were added before.

        Shape:
            - input, baseline: (C), (N, C) or (N, C, d1, ..., dk); with `axis`, C stands there.
            - target, sample_weight, group: input's shape without C.
            - byte_count: the same, or a number.

        Errors:
            TypeError: an argument is not of its type; a masked array.
            ValueError: shapes do not fit; the number of classes is not that of other batches; rows
                of probabilities do not add up to 1.
            IndexError: a target class is not in [0, C) and is not `ignore_index`.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 0.0], [0.0, 0.0]], [1, -100], byte_count=4)
            >>> evaluation.rows, evaluation.ignored_rows, evaluation.bits_per_byte
            (1, 1, 0.25)
        """
        first_row = self._seen if first_row is None else whole("first_row", first_row, 0)
        batch = self._reading.read(
            input,
            target,
            axis=axis,
            baseline=baseline,
            sample_weight=sample_weight,
            byte_count=byte_count,
            group=group,
            class_mask=class_mask,
        )
        if self._classes not in (None, batch.classes):
            raise ValueError(
                f"input has {batch.classes} classes, those of the batches before {self._classes}"
            )
        groups = None if batch.group is None else np.unique(batch.group, return_inverse=True)
        self._add(batch, groups, first_row)

    def _add(
        self, batch: Batch, groups: tuple[NDArray[Any], Integers] | None, first_row: int
    ) -> None:
        n, weight = len(batch.place), batch.weight
        columns: dict[str, NDArray[Any]] = {
            "loss": batch.loss,
            "entropy": batch.entropy,
            "confidence": batch.confidence,
        }
        columns |= {name: hits(batch, k) for name, k in zip(self._hits, self._ks, strict=True)}
        if batch.kl is not None:
            columns |= {"kl": batch.kl, "kl_weight": np.ones(n, np.bool_)}
        if batch.bytes is not None:
            columns |= {"bytes": batch.bytes, "byte_loss": batch.loss}
        sure = ~np.isnan(batch.confidence)
        of_bin = np.searchsorted(self._edges[1:-1], batch.confidence[sure])
        weight_of_bin = None if weight is None else weight[sure]
        in_bin = {name: columns[name][sure] for name in ("confidence", HIT)}

        self._classes = batch.classes
        self._seen += batch.seen
        self._total.add(None, weight, columns, n)
        if batch.more_bytes is not None:
            # Of all rows, and so of no group or class.
            self._total.columns["bytes"].add(np.array([batch.more_bytes]))
            self._total.columns["byte_loss"].add(batch.loss)
        self._calibration.add(of_bin, weight_of_bin, in_bin, len(of_bin))
        self._losses.add(batch.loss)
        if batch.kl is not None:
            self._kls.add(batch.kl)
        if self._per_class:
            self._make_classes().add(batch.target, weight, columns, n)
        if groups is not None:
            labels, inverse = groups
            cell = self._cells_of(labels.tolist())[inverse.ravel()]
            self._by_group.add(cell, weight, columns, n)
            cell = cell[sure] * self._bins + of_bin
            self._group_calibration.add(cell, weight_of_bin, in_bin, len(cell))
        if self._keep_worst and n:
            self._keep(batch, first_row)

    def _make_classes(self) -> Cells:
        if self._by_class is None:
            assert self._classes is not None
            self._by_class = Cells(self._classes, self._columns)
        return self._by_class

    def _cells_of(self, labels: list[int | str]) -> Integers:
        """The cells of groups, of which new ones get theirs."""
        known = {label: cell for cell, label in enumerate(self._labels)}
        new = [label for label in labels if label not in known]
        if new:
            before = np.arange(len(known))
            self._labels = self._labels + new
            self._by_group = self._by_group.spread(len(self._labels), before)
            self._group_calibration = self._group_calibration.spread(
                len(self._labels) * self._bins, self._bins_of(before)
            )
            known |= {label: len(known) + i for i, label in enumerate(new)}
        return np.array([known[label] for label in labels], np.int64)

    def _bins_of(self, cells: Integers) -> Integers:
        return (cells[:, None] * self._bins + np.arange(self._bins)).ravel()

    def _keep(self, batch: Batch, first_row: int) -> None:
        loss = np.where(np.isnan(batch.loss), inf, batch.loss)
        keep = min(self._keep_worst, len(loss))
        least = np.partition(loss, len(loss) - keep)[len(loss) - keep]
        if len(self._worst) == self._keep_worst:
            least = max(least, -self._worst[-1].log_prob)
        # Of equal losses the first rows come first: one more pass finds as many as are wanted.
        found = np.flatnonzero(loss >= least)
        found = found[np.lexsort((batch.place[found], -loss[found], ~np.isnan(batch.loss[found])))]
        self._worst = sorted(
            self._worst
            + [
                Token(
                    first_row + int(batch.place[i]),
                    int(batch.target[i]),
                    0.0 - float(batch.loss[i]),
                    int(batch.rank[i]),
                    float(batch.entropy[i]),
                )
                for i in found[:keep].tolist()
            ],
            key=Token.order,
        )[: self._keep_worst]

    # Parts

    def empty_like(self) -> Evaluation:
        """An evaluation of nothing with the same arguments.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> Evaluation(bins=10).empty_like() == Evaluation(bins=10)
            True
        """
        return Evaluation(**self._options())

    def merge(self, other: Evaluation) -> Evaluation:
        """Adds the rows of another evaluation, and returns itself.

        Merging is associative and commutative, bit for bit. Rows keep their numbers.

        Arguments:
            other: An evaluation with the same arguments; it is left as it is.

        Errors:
            TypeError: `other` is no evaluation.
            ValueError: the arguments of the two differ, or the numbers of classes do.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> total = Evaluation()
            >>> for batch in ([[1.0, 2.0]], [[3.0, 5.0]]):
            ...     part = Evaluation()
            ...     part.update(batch, [1])
            ...     total = total.merge(part)
            >>> total.rows
            2
        """
        if not isinstance(other, Evaluation):
            raise TypeError(f"other must be an Evaluation, got {type(other).__name__}")
        ours, theirs = self._options(), other._options()
        for name in ours:
            if ours[name] != theirs[name]:
                raise ValueError(f"other has {name}={theirs[name]!r}, and this {ours[name]!r}")
        if None not in (self._classes, other._classes) and self._classes != other._classes:
            raise ValueError(f"other has {other._classes} classes, and this {self._classes}")

        if self._classes is None:
            self._classes = other._classes
        self._seen += other._seen
        self._total.merge(other._total)
        self._calibration.merge(other._calibration)
        self._losses.merge(other._losses)
        self._kls.merge(other._kls)
        if other._by_class is not None:
            self._make_classes().merge(other._by_class)
        cells = self._cells_of(other._labels)
        self._by_group.merge(other._by_group, cells)
        self._group_calibration.merge(other._group_calibration, self._bins_of(cells))
        self._worst = sorted(self._worst + other._worst, key=Token.order)[: self._keep_worst]
        return self

    def _options(self) -> dict[str, Any]:
        return {
            **asdict(self._reading),
            "top_k": self._ks,
            "bins": self._bins,
            "per_class": self._per_class,
            "worst": self._keep_worst,
        }

    # What is read

    @property
    def rows(self) -> int:
        """How many rows count."""
        return int(self._total.rows()[0])

    @property
    def ignored_rows(self) -> int:
        """How many do not."""
        return self._seen - self.rows

    @property
    def classes(self) -> int | None:
        """How many classes there are; None before the first batch."""
        return self._classes

    @property
    def nan_rows(self) -> int:
        """How many rows of those that count have a NaN: each makes the means of losses, entropies,
        confidences and divergences NaN, and is a miss in accuracy and top-k."""
        return self._losses.nans

    @property
    def cross_entropy(self) -> float:
        """The mean of -log p of the target, in nats."""
        return self._total.mean("loss")

    @property
    def bits(self) -> float:
        """The cross-entropy in bits."""
        return self.cross_entropy / log(2)

    @property
    def perplexity(self) -> float:
        """The exponential of the cross-entropy in nats."""
        return exponential(self.cross_entropy)

    @property
    def bits_per_byte(self) -> float:
        """Bits over bytes, of the rows that had a `byte_count`; NaN where none had."""
        return self._total.mean("byte_loss", "bytes") / log(2)

    @property
    def accuracy(self) -> float:
        """The share of rows whose target no class is above; of ties, a fair draw."""
        return self._total.mean(HIT)

    def top_k(self, k: int) -> float:
        """The share of rows whose target has fewer than k classes above it.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation(top_k=(1, 2))
            >>> evaluation.update([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2])
            >>> evaluation.top_k(2)
            0.5
        """
        if k not in self._ks:
            raise ValueError(f"k must be one of {self._ks}, as top_k was, got {k!r}")
        return self._total.mean(f"top{k}")

    @property
    def entropy(self) -> float:
        """The mean entropy of the distributions, in nats."""
        return self._total.mean("entropy")

    @property
    def confidence(self) -> float:
        """The mean probability of the most likely class."""
        return self._total.mean("confidence")

    @property
    def kl_divergence(self) -> float:
        """The mean divergence from the baseline's distributions, in nats, over the rows that had
        one; NaN where none had."""
        return self._total.mean("kl", "kl_weight")

    def kl_quantiles(self, q: Iterable[float]) -> list[float]:
        """Quantiles of the divergences of rows, in nats: see `Quantiles`. Weights do not matter.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 1.0]], [1], baseline=[[0.0, 1.0]])
            >>> evaluation.kl_quantiles([0.5, 0.99])
            [0.0, 0.0]
        """
        return self._kls.at(q)

    def loss_quantiles(self, q: Iterable[float]) -> list[float]:
        """Quantiles of the losses of rows, in nats: see `Quantiles`. Weights do not matter.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 0.0], [0.0, 20.0]], [0, 1])
            >>> evaluation.loss_quantiles([0.5, 1.0])
            [2.061153620314381e-09, 0.6931471805599453]
        """
        return self._losses.at(q)

    def loss_bins(self) -> list[tuple[float, float, int]]:
        """The histogram of the losses of rows: from, to, how many. Bins are those of `Quantiles`.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 0.0]], [1])
            >>> evaluation.loss_bins()
            [(0.69140625, 0.6953125, 1)]
        """
        return self._losses.bins()

    @property
    def expected_calibration_error(self) -> float:
        """The mean of how far accuracy and confidence are apart in a bin."""
        return self._calibration_error(self._calibration, range(self._bins), self._total, 0)

    def reliability(self, *, group: int | str | None = None) -> dict[str, NDArray[Any]]:
        """The reliability diagram: for each bin of confidence `lower` and `upper`, `rows`,
        `weight`, and, NaN in empty bins, `confidence` and `accuracy`.

        Arguments:
            group: The label of a group, whose rows alone are wanted. Of classes no bins are held.

        Errors:
            TypeError: `group` is no label.
            ValueError: no row has this label.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation(bins=2)
            >>> evaluation.update([[0.0, 5.0], [0.0, 5.0]], [1, 0], group=["prose", "code"])
            >>> evaluation.reliability()["accuracy"]
            array([nan, 0.5])
            >>> evaluation.reliability(group="prose")["accuracy"]
            array([nan,  1.])
        """
        cells = self._calibration
        if group is not None:
            label = group if isinstance(group, str) else whole("group", group, None)
            if label not in self._labels:
                raise ValueError(f"group must be the label of a group, got {label!r}")
            place = np.array([self._labels.index(label)])
            cells = self._group_calibration.taken(self._bins_of(place))
        return {
            "lower": self._edges[:-1],
            "upper": self._edges[1:],
            "rows": cells.rows(),
            "weight": cells.columns[WEIGHT].values(),
            "confidence": cells.means("confidence"),
            "accuracy": cells.means(HIT),
        }

    def by_class(self) -> dict[str, NDArray[Any]]:
        """Measures of the rows of each target class, as many as there are classes: those of
        `by_group` but `expected_calibration_error`, as bins of confidence are not held for classes.
        `label` is the class. Of a class without rows all means are NaN.

        Errors:
            ValueError: `per_class` was not asked for.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation(per_class=True)
            >>> evaluation.update([[0.0, 5.0], [0.0, 5.0]], [1, 0])
            >>> evaluation.by_class()["accuracy"]
            array([0., 1.])
        """
        if not self._per_class:
            raise ValueError("per_class must be True for measures of classes")
        cells = Cells(0, self._columns) if self._by_class is None else self._by_class
        return self._table(cells, np.arange(cells.size))

    def by_group(self) -> dict[str, NDArray[Any]]:
        """Measures of each group: `label`, `rows`, `weight`, `cross_entropy`, `bits`, `perplexity`,
        `accuracy`, `top5` and so on, `entropy`, `confidence`, `kl_divergence`, `bits_per_byte` and
        `expected_calibration_error`, arrays of as many as there are groups, by label.

        Its reliability diagram is `reliability(group=label)`. Quantiles are of all rows alone.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 5.0], [0.0, 5.0]], [1, 0], group=["prose", "code"])
            >>> evaluation.by_group()["label"].tolist(), evaluation.by_group()["accuracy"]
            (['code', 'prose'], array([0., 1.]))
        """
        order = np.array(self._order(), np.int64)
        labels = label_array([self._labels[i] for i in order])
        table = self._table(self._by_group.taken(order), labels)
        table["expected_calibration_error"] = np.array(
            [
                self._calibration_error(
                    self._group_calibration,
                    range(cell * self._bins, (cell + 1) * self._bins),
                    self._by_group,
                    cell,
                )
                for cell in order.tolist()
            ]
        )
        return table

    def _order(self) -> list[int]:
        """Groups by label, numbers before strings."""
        labels = self._labels
        return sorted(range(len(labels)), key=lambda i: (isinstance(labels[i], str), labels[i]))

    def _table(self, cells: Cells, labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
        loss = cells.means("loss")
        return {
            "label": labels,
            "rows": cells.rows(),
            "weight": cells.columns[WEIGHT].values(),
            "cross_entropy": loss,
            "bits": loss / log(2),
            "perplexity": np.array([exponential(mean) for mean in loss.tolist()]),
            "accuracy": cells.means(HIT),
            **{name: cells.means(name) for name in self._hits[1:]},
            "entropy": cells.means("entropy"),
            "confidence": cells.means("confidence"),
            "kl_divergence": cells.means("kl", "kl_weight"),
            "bits_per_byte": cells.means("byte_loss", "bytes") / log(2),
        }

    def worst_tokens(self) -> list[Token]:
        """The least likely of all rows, as many as `worst` says: the number of the row, its target,
        the log-probability in nats, how many classes are above the target, the entropy.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation(worst=1)
            >>> evaluation.update([[0.0, 5.0], [0.0, 5.0]], [1, 0])
            >>> evaluation.worst_tokens()[0].row
            1
        """
        return list(self._worst)

    def summary(self, q: Iterable[float] = (0.5, 0.9, 0.99, 0.999, 1.0)) -> dict[str, Any]:
        """All measures of the whole, by name: numbers, and quantiles by q as text.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 0.0]], [1])
            >>> evaluation.summary()["bits"]
            1.0
        """
        shares = list(q)
        found: dict[str, Any] = {
            "rows": self.rows,
            "ignored_rows": self.ignored_rows,
            "nan_rows": self.nan_rows,
            "classes": self.classes,
            "weight": self._total.columns[WEIGHT].value(),
            "cross_entropy": self.cross_entropy,
            "bits": self.bits,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            **{f"top{k}": self.top_k(k) for k in self._ks[1:]},
            "entropy": self.entropy,
            "confidence": self.confidence,
            "expected_calibration_error": self.expected_calibration_error,
            "loss_quantiles": named(shares, self.loss_quantiles(shares)),
        }
        if self._has_bytes:
            count = self._total.columns["bytes"].value()
            # Weights may make it a fraction.
            found["bytes"] = int(count) if count.is_integer() else count
            found["bits_per_byte"] = self.bits_per_byte
        if self._has_kl:
            found["kl_divergence"] = self.kl_divergence
            found["kl_quantiles"] = named(shares, self.kl_quantiles(shares))
        return found

    @property
    def _has_bytes(self) -> bool:
        return self._total.columns["bytes"].value() > 0

    @property
    def _has_kl(self) -> bool:
        return bool(self._kls.count or self._kls.nans)

    def _calibration_error(
        self, bins: Cells, cells: Iterable[int], whole: Cells, cell: int
    ) -> float:
        if isinstance(whole.columns["confidence"].exact(cell), float):
            return nan
        weight = whole.columns[WEIGHT].exact(cell)
        gap = Fraction(0)
        for i in cells:
            confidence, hits = bins.columns["confidence"].exact(i), bins.columns[HIT].exact(i)
            gap += abs(Fraction(hits) - Fraction(confidence))
        return rounded(gap / weight) if weight else nan

    # What is kept

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluation) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Evaluation(rows={self.rows}, cross_entropy={self.cross_entropy:.6g}, "
            f"accuracy={self.accuracy:.6g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything that is held, for `json.dumps`: integers and strings, and no float is rounded.

        Example:
            >>> import json
            >>> from crossent.evaluation import Evaluation
            >>> evaluation = Evaluation()
            >>> evaluation.update([[0.0, 1.0]], [1])
            >>> kept = json.dumps(evaluation.to_dict())
            >>> Evaluation.from_dict(json.loads(kept)) == evaluation
            True
        """
        order = np.array(self._order(), np.int64)
        return {
            "format": FORMAT,
            "version": VERSION,
            "options": {**self._options(), "top_k": list(self._ks)},
            "classes": self._classes,
            "seen": self._seen,
            "total": self._total.to_dict(),
            "calibration": self._calibration.to_dict(),
            "loss_quantiles": self._losses.to_dict(),
            "kl_quantiles": self._kls.to_dict(),
            "by_class": None if self._by_class is None else self._by_class.to_dict(),
            "groups": {
                "labels": [self._labels[i] for i in order],
                "cells": self._by_group.taken(order).to_dict(),
                "calibration": self._group_calibration.taken(self._bins_of(order)).to_dict(),
            },
            "worst": [
                {
                    **token._asdict(),
                    "log_prob": token.log_prob.hex(),
                    "entropy": token.entropy.hex(),
                }
                for token in self._worst
            ],
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_dict` wrote, bit for bit.

        Errors:
            ValueError: it is of another format or version, or was changed.

        Example:
            >>> from crossent.evaluation import Evaluation
            >>> Evaluation.from_dict(Evaluation().to_dict()).rows
            0
        """
        if not isinstance(kept, Mapping) or kept.get("format") != FORMAT:
            raise ValueError(f"kept must be what to_dict wrote, of the format {FORMAT}")
        if kept.get("version") != VERSION:
            raise ValueError(f"kept has version {kept.get('version')!r}, and this reads {VERSION}")
        try:
            result = cls(**kept["options"])
            result._fill(kept)
            wrong = result._contradiction()
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"kept is damaged: {error!r}") from error
        if wrong:
            raise ValueError(f"kept is damaged: {wrong}")
        return result

    def _contradiction(self) -> str | None:
        """What cannot be, as sums of the same rows are held in several places."""
        total, rows, losses = self._total, self.rows, self._losses
        if rows != losses.count + losses.nans or losses.nans < 0:
            return f"{rows} rows count, and {losses.count + losses.nans} have a loss"
        if rows > self._seen:
            return f"{rows} rows count of {self._seen}"
        if rows and self._classes is None:
            return "there are rows, and no classes"
        if len(self._worst) != min(self._keep_worst, rows):
            return f"{len(self._worst)} of the least likely rows are held, not {self._keep_worst}"
        if any(not (0 <= each.target < (self._classes or 0)) for each in self._worst):
            return "one of the least likely rows has a target that is no class"
        if self._worst != sorted(self._worst, key=Token.order):
            return "the least likely rows are not in order"

        loss, weight = total.columns["loss"].exact(), total.columns[WEIGHT].exact()
        low, high = losses.at([0.0, 1.0])
        if isinstance(loss, Fraction) and isinstance(weight, Fraction) and high < inf:
            # Products with weights are rounded, at worst to the least float.
            slack = Fraction(1, 2**50) * weight * Fraction(high) + Fraction(rows, 2**1074)
            if not weight * Fraction(low) - slack <= loss <= weight * Fraction(high) + slack:
                return "the mean loss is not between the least and the largest"

        parts = [("bins", self._calibration)] if total_is_number(total, "confidence") else []
        if self._per_class and rows:
            if self._by_class is None:
                return "measures of classes are missing"
            parts.append(("classes", self._by_class))
        for what, cells in parts:
            for name in cells.columns:
                # Bytes of a whole batch are of no class.
                if name not in ("bytes", "byte_loss") and not same(
                    cells.summed(name), total.columns[name].exact()
                ):
                    return f"{name} of all {what} is not that of all rows"
        if len(set(self._labels)) < len(self._labels):
            return "two groups have the same label"
        if any(type(label) not in (int, str) for label in self._labels):
            return "labels of groups must be integers or strings"
        if (self._by_group.rows() < 0).any() or self._by_group.rows().sum() > rows:
            return "groups have more rows than there are"
        return None

    def _fill(self, kept: Mapping[str, Any]) -> None:
        bins = ("confidence", HIT)
        classes = kept["classes"]
        self._classes = None if classes is None else whole("classes", classes, 0)
        self._seen = whole("seen", kept["seen"], 0)
        self._total = Cells.from_dict(kept["total"], 1, self._columns)
        self._calibration = Cells.from_dict(kept["calibration"], self._bins, bins)
        self._losses = Quantiles.from_dict(kept["loss_quantiles"])
        self._kls = Quantiles.from_dict(kept["kl_quantiles"])
        if kept["by_class"] is not None:
            self._by_class = Cells.from_dict(kept["by_class"], classes, self._columns)
        groups = kept["groups"]
        self._labels = list(groups["labels"])
        n = len(self._labels)
        self._by_group = Cells.from_dict(groups["cells"], n, self._columns)
        self._group_calibration = Cells.from_dict(groups["calibration"], n * self._bins, bins)
        self._worst = [
            Token(
                token["row"],
                token["target"],
                float.fromhex(token["log_prob"]),
                token["rank"],
                float.fromhex(token["entropy"]),
            )
            for token in kept["worst"]
        ]


def total_is_number(cells: Cells, name: str) -> bool:
    """Whether neither a NaN nor an infinity is in the only sum of a column."""
    return isinstance(cells.columns[name].exact(), Fraction)


def same(a: Fraction | float, b: Fraction | float) -> bool:
    """Equality, with NaN equal to itself."""
    return a == b or (a != a and b != b)


def hits(batch: Batch, k: int) -> NDArray[Any]:
    """Whether the target is among the k most likely classes; where it is one of more than k that
    share the top, how often it is among k that are drawn of them."""
    # Of more places than there are classes, too, a NaN has none.
    hit = batch.rank < min(k, batch.classes + 1)
    tied = batch.ties > k
    return np.where(tied, k / batch.ties, hit) if tied.any() else hit


def exponential(x: float) -> float:
    """exp, infinite where it is beyond the largest float."""
    try:
        return exp(x)
    except OverflowError:
        return inf


def named(shares: list[float], values: list[float]) -> dict[str, float]:
    """By the shortest text that is the share and no other."""
    short = {share: f"{share:g}" for share in shares}
    names = [text if float(text) == share else repr(float(share)) for share, text in short.items()]
    return dict(zip(names, [values[shares.index(share)] for share in short], strict=True))


def label_array(labels: list[int | str]) -> NDArray[Any]:
    """Labels in an array; of objects where no type holds all of them as they are."""
    array = np.array(labels)
    if labels and (array.dtype.kind not in "iuU" or array.tolist() != labels):
        array = np.empty(len(labels), object)
        array[:] = labels
    return array
