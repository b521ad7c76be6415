"""Defines the records of one network at one stage of a run: its costs and its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import fmean, pstdev

from prunebench.errors import require
from prunebench.records.widths import advice

#: title of the default metric
TOP1 = "top-1"
#: a latency is unreliable if its interquartile range is more than this share of its median
BUSY = 0.2
#: exclusive upper bound of counts, so that they convert to float
MOST = 2**63


@dataclass(frozen=True, kw_only=True)
class Score:
    """Holds how many samples of one split a network got right.

    Attributes:
        correct: samples whose label was ranked first.
        correct_top5: samples whose label was among the first five; None below six classes.
        seen: samples in all.
        loss: mean cross-entropy per sample; None if it was not finite or not computed.
        metric: None for top-1, else the name of a verification set (``lfw``), whose samples are
            pairs of images.
    """

    correct: int
    correct_top5: int | None
    seen: int
    loss: float | None
    metric: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_share(self.correct, self.seen)

    @property
    def key(self) -> str:
        """The metric, as names of figures spell it."""
        return self.metric or "top1"

    @property
    def title(self) -> str:
        """The metric, as tables spell it."""
        return TOP1 if self.metric is None else self.metric.upper()

    @property
    def accuracy(self) -> float:
        """Accuracy by `metric` in percent; for pairs also the mean over their equal folds."""
        return 100.0 * self.correct / self.seen

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None if it was not counted."""
        return None if self.correct_top5 is None else 100.0 * self.correct_top5 / self.seen


def require_share(correct: int, seen: int) -> None:
    """Raises ConfigError unless 0 <= `correct` <= `seen` and `seen` is positive."""
    require(0 <= correct <= seen, f"correct must lie in [0, seen={seen}], got {correct}")
    require(0 < seen < MOST, f"seen must be positive, got {seen}")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Holds how well a network told whether pairs of faces show one person, fold by fold.

    Attributes:
        protocol: ``insightface`` or ``sphereface``; `prunebench.measure.verification` defines both.
        correct, pairs: right answers of each fold, and all of its pairs.
        thresholds: chosen on the other folds; squared distances, or cosines (sphereface).
        far: false acceptance rate on the other folds at which `accepted` is measured.
        accepted: share of each fold's pairs of one person that were accepted there.
        roc: points [false acceptance rate, true acceptance rate] over all folds.
    """

    protocol: str
    correct: list[int]
    pairs: list[int]
    thresholds: list[float]
    far: float
    accepted: list[float]
    roc: list[list[float]]

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(len(self.correct) == len(self.pairs) > 0, "correct and pairs must be of each fold")
        for correct, seen in zip(self.correct, self.pairs, strict=True):
            require_share(correct, seen)

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each fold in percent."""
        return [100.0 * c / n for c, n in zip(self.correct, self.pairs, strict=True)]

    @property
    def accuracy(self) -> float:
        """Mean of the folds' accuracies in percent."""
        return fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Standard deviation of the folds' accuracies in points, as papers on LFW report it."""
        return pstdev(self.accuracies)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Holds the time of one forward pass; its spread is the interquartile range.

    Attributes:
        batch: images per forward pass.
        device: name of the hardware.
        threads: CPU threads used.
        median_ms, iqr_ms: milliseconds per forward pass of the whole batch.
    """

    batch: int
    device: str
    threads: int
    median_ms: float
    iqr_ms: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        ran = 0 < self.median_ms < inf
        require(ran, f"median_ms must be positive, got {self.median_ms}")

    @property
    def busy(self) -> bool:
        """Whether the spread is so wide that the machine must have been busy with other work."""
        return self.iqr_ms > BUSY * self.median_ms


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Describes one network at one stage of a run.

    Attributes:
        stage: one of `prunebench.records.STAGES`.
        params: number of parameters.
        macs: multiply-adds of one image; the report's `convention` says which are counted.
        size_bytes: of the saved weights on disk.
        test, val: scores; None if the split was not read.
        latency: one entry per batch size.
        verification: name -> result on pairs of faces, the first of which is also `test`; None if
            images are classified.
    """

    stage: str
    params: int
    macs: int
    size_bytes: int
    test: Score | None
    val: Score | None
    latency: list[Latency]
    verification: dict[str, Verification] | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        for name in ("params", "macs", "size_bytes"):
            count = getattr(self, name)
            require(0 <= count < MOST, f"{name} must be a count, got {str(count)[:20]}")


@dataclass(frozen=True, kw_only=True)
class LatencyTarget:
    """Holds what a budget in milliseconds asked for and achieved; times are the fastest of many.

    Attributes:
        on: ``cpu``, ``cuda`` or ``onnxruntime``.
        batch: images per pass.
        device, threads: of the machine.
        divisor: of the kept counts, as asked for or chosen.
        dense_ms: of the dense network, measured.
        asked_ms: the budget.
        predicted_ms: of the slim network, from the times of its layers.
        measured_ms: of the slim network.
        costly_widths: kept counts that cost the speed-up because they are no multiples of 8.
    """

    on: str
    batch: int
    device: str
    threads: int
    divisor: int
    dense_ms: float
    asked_ms: float
    predicted_ms: float
    measured_ms: float
    costly_widths: list[int]

    def __str__(self) -> str:
        """Returns a line for the user."""
        off = self.measured_ms / self.predicted_ms - 1 if self.predicted_ms else 0.0
        verdict = (
            "" if abs(off) <= 0.1 else ", MORE THAN 10 % OFF: time it again on a quiet machine"
        )
        return (
            f"latency ({self.on}, batch {self.batch}, {self.device}, threads: {self.threads}): "
            f"dense {self.dense_ms:.3g} ms, asked for {self.asked_ms:.3g}, predicted "
            f"{self.predicted_ms:.3g}, measured {self.measured_ms:.3g} ({off:+.0%}{verdict}); "
            f"divisor {self.divisor}"
        )

    @property
    def advice(self) -> str:
        """Advice on the widths that cost the speed-up; "" if there are none."""
        return advice(self.costly_widths, "cost")
