"""Computes the difference in accuracy of two methods, with its 95 % interval.

Both methods start from the same baselines, seed by seed, and classify the same images. What is
analysed is the difference for every seed and image: +1, 0 or -1. Seeds and images are both taken as
random: another training and another test set would give another difference. With s seeds and n
images the variance of the mean difference is

    (seeds + images - rest) / (s n)

in the mean squares of a two-way analysis of variance without repetitions. The degrees of freedom
are Satterthwaite's, and the interval is Student's. With one seed, the trainings are taken as fixed,
and the interval is about the images alone (McNemar's question). Where the predictions were not
kept, the differences per seed are compared by a paired t test, with the test set taken as fixed.

This assumes that seeds and images are independent draws, and that the mean of so many is nearly
normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: confidence level of the intervals
LEVEL = 0.95
#: `seeds_to_see` gives up beyond this number
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Difference:
    """Holds by how much one method is ahead of another.

    Attributes:
        points: mean difference in accuracy, in percentage points.
        half: half the width of the 95 % interval, in points; infinite for one seed without
            predictions, since nothing then tells the spread.
        seeds: number of seeds.
        images: number of images whose predictions were compared; 0 if only accuracies are known.
        seed_variance: variance of the difference between seeds, in points squared; 0 for one seed.
        image_variance: variance of the mean due to the choice of images, which no number of seeds
            reduces, in points squared.
        rest_variance: estimated part of `seed_variance` that is due to seed and image together,
            not to the seed itself, in points squared.
    """

    points: float
    half: float
    seeds: int
    images: int
    seed_variance: float
    image_variance: float
    rest_variance: float = 0.0

    @property
    def verdict(self) -> str:
        """Better, worse, or not distinguishable."""
        if abs(self.points) <= self.half:
            return "not distinguishable"
        return "better" if self.points > 0 else "worse"

    def seeds_to_see(self, points: float) -> int | None:
        """Returns how many seeds make half the interval no wider than `points`.

        None if no number up to `MOST_SEEDS` does, because the test set is too small, or if there is
        only one seed and so no estimate of the spread.
        """
        if self.seeds < 2:
            return None
        found = (n for n in range(2, MOST_SEEDS + 1) if self._half_with(n) <= points)
        return next(found, None)

    def _half_with(self, seeds: int) -> float:
        """Returns half the width of the interval that so many seeds are likely to give."""
        of_images = self.rest_variance + seeds * self.image_variance
        squares = (self.seed_variance, of_images, self.rest_variance)
        return _half(squares, seeds, max(self.images, 2))


def by_image(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Difference:
    """Returns the difference of two methods whose predictions are known.

    Args:
        ours: whether each prediction is right, [seeds, images].
        theirs: the same of the other method, seeds and images in the same order.
    """
    import numpy as np

    gaps = 100.0 * (ours.astype(float) - theirs.astype(float))
    seeds, images = gaps.shape
    mean = float(gaps.mean())
    by_seed, by_picture = gaps.mean(1), gaps.mean(0)
    of_images = seeds * float(by_picture.var(ddof=1))
    if seeds == 1:
        variance = of_images / images
        half = _quantile(images - 1) * math.sqrt(variance)
        return Difference(mean, half, 1, images, 0.0, variance)
    of_seeds = images * float(by_seed.var(ddof=1))
    rest = gaps - by_seed[:, None] - by_picture[None, :] + mean
    of_rest = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1))
    squares = (of_seeds / images, of_images / images, of_rest / images)
    return Difference(
        points=mean,
        half=_half(squares, seeds, images),
        seeds=seeds,
        images=images,
        seed_variance=squares[0],
        image_variance=max(squares[1] - squares[2], 0.0) / seeds,
        rest_variance=squares[2],
    )


def by_seed(ours: list[float], theirs: list[float]) -> Difference:
    """Returns the difference of two methods, given only their accuracies in percent, per seed."""
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    seeds = len(gaps)
    mean = math.fsum(gaps) / seeds
    if seeds == 1:
        return Difference(mean, math.inf, 1, 0, 0.0, 0.0)
    variance = math.fsum((gap - mean) ** 2 for gap in gaps) / (seeds - 1)
    half = _quantile(seeds - 1) * math.sqrt(variance / seeds)
    return Difference(mean, half, seeds, 0, variance, 0.0)


def _half(squares: tuple[float, float, float], seeds: int, images: int) -> float:
    """Returns half the width of the interval of a mean over `seeds` and `images`.

    `squares` are the mean squares of seeds, of images and of the rest, each divided by the number
    of images.
    """
    of_seeds, of_images, of_rest = squares
    whole = max(of_seeds + of_images - of_rest, of_seeds, of_images)
    if not whole:
        return 0.0
    free = whole**2 / (
        of_seeds**2 / (seeds - 1)
        + of_images**2 / (images - 1)
        + of_rest**2 / ((seeds - 1) * (images - 1))
    )
    return _quantile(max(free, 1.0)) * math.sqrt(whole / seeds)


def _quantile(free: float) -> float:
    """Returns how many standard errors half the interval is wide, for `free` degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats.t.ppf calls it, but is slow to import

    return float(stdtrit(free, (1 + LEVEL) / 2))
