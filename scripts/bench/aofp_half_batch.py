"""Measures how AOFP's scores change if only half of each batch is scored.

With the weights of a trained network fixed, three observers score the same random masks at each
step: on the whole batch, on its first half (`criterion.score_samples`), and on a batch of other
images, which shows how far scores are random anyway. For each layer it compares the channels'
scores with those of the whole batch: Spearman's correlation, and the share of the lower half (in
which AOFP searches on, or which it removes) that is the same. `pruning_during_training.py` measures
the time.

    python scripts/bench/aofp_half_batch.py resnet20=resnet20-12fca82f.th --data data
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from statistics import mean

import torch
from foad_selection import loaded
from pruning_during_training import observer
from result import Row, arguments, publish
from torch import Tensor

from prunebench.contracts import Moment
from prunebench.criteria.aofp.observer import AofpObserver
from prunebench.criteria.aofp.search import mean_damage
from prunebench.training.split import Split

BATCH = 64
ABOUT = """AOFP scores the channels of a trained network (public ResNet-20) on half of each batch
of 64 images. How well do these scores agree with those of the whole batch for the same draws? For
comparison, the second row scores whole batches of other images. Spearman's correlation, mean and
lowest over the layers; "same lower half" is the share of the lower-scored half that is
the same."""

#: variant -> seed of the images, and number of images per batch that are scored (None = all)
HOW = {"whole batch": (0, None), "half of the batch": (0, BATCH // 2), "other images": (1, None)}


def batches(split: Split, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields a batch for each step."""
    images, labels = split.sample(steps * BATCH, seed=seed)
    for start in range(0, steps * BATCH, BATCH):
        some = slice(start, start + BATCH)
        yield images[some], labels[some]


def scores(watching: AofpObserver) -> list[Tensor]:
    """Returns the mean damage of each channel, layer by layer."""
    return [
        mean_damage(search.masks[: search.draws], search.damages[: search.draws])
        for search in watching.searches
    ]


def correlation(one: Tensor, other: Tensor) -> float:
    """Returns Spearman's correlation."""
    ranks = torch.stack([one.argsort().argsort(), other.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def shared(one: Tensor, other: Tensor) -> float:
    """Returns the share of the lower half of `one` that is in the lower half of `other`."""
    count = len(one) // 2
    lower = [{*scores.argsort()[:count].tolist()} for scores in (one, other)]
    return len(lower[0] & lower[1]) / count


def main() -> None:
    """Scores with each number of draws, and compares."""
    parser = arguments(__doc__)
    parser.add_argument("net", metavar="MODEL=CHECKPOINT")
    parser.add_argument("--data", default="data", help="folder with CIFAR-10")
    parser.add_argument("--draws", type=int, nargs="+", default=[64, 256])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    network, _, split = loaded(asked.net, asked.data)
    rows: list[Row] = []
    for draws in asked.draws:
        found = {}
        for name, (seed, samples) in HOW.items():
            still = deepcopy(network).train()
            watching = observer(
                "aofp", still, BATCH, draws_per_half=draws + 1, score_samples=samples
            )
            assert isinstance(watching, AofpObserver)
            watching.start(still, torch.optim.SGD(still.parameters(), 0.0))
            with torch.no_grad():
                for step, (images, labels) in enumerate(batches(split, draws, seed)):
                    watching.before_step(0, step, len(labels))
                    still(images)
                    watching.after_step(Moment(0, step, draws + 1, labels, len(labels)))
            found[name] = scores(watching)
        whole = found.pop("whole batch")
        for name, layers in found.items():
            alike = [correlation(*pair) for pair in zip(whole, layers, strict=True)]
            rows.append(
                {
                    "draws": draws,
                    "against the whole batch": name,
                    "correlation": mean(alike),
                    "lowest": min(alike),
                    "same lower half": mean(map(shared, whole, layers)),
                }
            )
    publish(asked, "AOFP: scoring half of each batch", ABOUT, rows)


if __name__ == "__main__":
    main()
