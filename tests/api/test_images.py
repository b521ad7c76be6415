"""`images=`, `loss=` and `forward=`, for all inputs and outputs that networks have."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import prunebench
from prunebench.criteria import Criterion
from prunebench.criteria.apoz import Apoz
from prunebench.criteria.foad import Foad
from prunebench.criteria.hrank import Hrank
from prunebench.criteria.oracle import Oracle
from prunebench.criteria.taylor import Taylor
from prunebench.criteria.thinet import Thinet
from prunebench.errors import ConfigError, PruningError
from prunebench.repairs.bn_recalibration import BnRecalibration

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4
CRITERIA = [
    Taylor(num_samples=6, batch=4), Taylor(form="activation", num_samples=6, batch=4),
    Oracle(num_samples=6, chunk=4), Apoz(num_samples=6, chunk=4), Hrank(num_samples=6, chunk=4),
    Foad(num_samples=6, chunk=4), Thinet(num_samples=6, chunk=4),
]  # fmt: skip
NAMES = [f"{type(one).__name__} {getattr(one, 'form', '')}" for one in CRITERIA]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


class Two(nn.Module):
    """The same network with its input in two halves, and its output in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, top: Tensor, bottom: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(torch.cat([top, bottom], 2))}


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[:, :, :4], images[:, :, 4:]


def logits(model: nn.Module, batch: tuple[Tensor, Tensor] | list[Tensor]) -> Tensor:
    found: Tensor = model(*batch)["logits"]
    return found


@pytest.mark.parametrize("criterion", CRITERIA, ids=NAMES)
def test_every_criterion_sees_the_same_in_every_form(criterion: Criterion) -> None:
    def kept(model: nn.Module, example: object, **given: object) -> tuple[int, ...]:
        small = prunebench.prune(
            model, example, criterion=criterion, budget="uniform", repair=BnRecalibration(images=6),
            **given,
        )  # fmt: skip
        return next(iter(small.plan.kept.values()))

    plain = kept(network(), EXAMPLE, images=(IMAGES, LABELS))
    loader = DataLoader(list(zip(IMAGES, LABELS, strict=True)), batch_size=3)
    assert kept(network(), EXAMPLE, images=loader) == plain
    two, forward = halves(EXAMPLE), {"forward": logits}
    assert kept(Two(), two, images=(halves(IMAGES), LABELS), **forward) == plain
    own = {"loss": lambda outputs, labels: cross_entropy(outputs["logits"], labels)}
    named = dict(zip(("top", "bottom"), halves(IMAGES), strict=True))
    assert kept(Two(), two, images=(named, LABELS), **own) == plain
    pairs = [((i[:, :4], i[:, 4:]), label) for i, label in zip(IMAGES, LABELS, strict=True)]
    assert kept(Two(), two, images=DataLoader(pairs, batch_size=4), **own) == plain


def test_a_loss_of_ones_own_decides() -> None:
    """Channel 0 alone decides the first output, and the loss looks at that one."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(1), nn.Linear(4 * 64, 2))
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].weight[0, :64] = 1e-3  # little, but all there is
        model[2].weight[1, 64:] = 1.0
    target = torch.ones(8)
    for criterion in (Taylor(form="weight"), Taylor(form="activation"), Oracle()):
        small = prunebench.prune(
            model, EXAMPLE, criterion=criterion, uniform=0.25, images=(IMAGES, target),
            loss=lambda outputs, wanted: mse_loss(outputs[:, 0], wanted),
        )  # fmt: skip
        assert small.plan.kept == {"0": (0,)}


def test_lists_have_an_entry_for_each_image_where_a_forward_takes_them() -> None:
    """As detection has them: images of several sizes, and a dict of targets for each."""
    images = [torch.randn(3, size, 8) for size in (6, 7, 8, 9)]
    targets = [{"label": torch.tensor([i])} for i in range(4)]
    batches = [(images[:3], targets[:3]), (images[3:], targets[3:])]
    seen = list[int]()

    def forward(model: nn.Module, batch: list[Tensor]) -> Tensor:
        seen.append(len(batch))
        return torch.stack([model(image[None])[0] for image in batch])

    def loss(outputs: Tensor, wanted: list[dict[str, Tensor]]) -> Tensor:
        return cross_entropy(outputs, torch.cat([one["label"] for one in wanted]))

    prunebench.prune(
        network(), EXAMPLE, criterion=Taylor(num_samples=4, batch=2), images=batches,
        forward=forward, loss=loss,
    )  # fmt: skip
    assert seen == [2, 2]


def test_no_more_batches_are_drawn_than_are_looked_at() -> None:
    drawn = list[int]()

    def batches():
        for number in range(100):
            drawn.append(number)
            yield IMAGES[:2], LABELS[:2]

    small = prunebench.prune(
        network(), EXAMPLE, criterion=Apoz(num_samples=5), uniform=0.5, images=batches()
    )
    assert drawn == [0, 1, 2]
    assert small.report.notes == []
    prunebench.prune(network(), EXAMPLE, criterion="l1", images=batches())
    assert drawn == [0, 1, 2]


MISTAKES = [
    (TensorDataset(IMAGES, LABELS), r"data set \(TensorDataset\); give .*DataLoader"),
    ("a path", "images must be a tensor, .*got 'a path'"),
    (None, r"taylor needs 1024 training images; give images="),
    ([], "images= holds no image"),
    (IMAGES[:0], "images= holds no image"),
    ((IMAGES, LABELS[:3]), "the parts of images= hold 3 and 8 images"),
    ((IMAGES, LABELS, LABELS), r"a batch of 3 parts is not \(inputs, targets\)"),
    ((IMAGES.numpy(), LABELS), "images must be a tensor, "),
    (IMAGES, r"no cross-entropy .*give logits and int64 labels, or prune\(..., loss="),
    ((IMAGES, LABELS + 1000), "no cross-entropy .*out of bounds"),
    ((IMAGES, LABELS.float()), "no cross-entropy"),
    ((IMAGES[:, :2], LABELS), r"fails on the first of images= .*expected input"),
    ((IMAGES * torch.nan, LABELS), "images= holds values that are not finite"),
    ([(IMAGES, LABELS), (IMAGES[:, :, :4], LABELS)], "differ in size"),
]


@pytest.mark.parametrize(("images", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_what_fits_nothing_is_one_sentence(images: object, says: str) -> None:
    with pytest.raises((ConfigError, PruningError), match=says) as told:
        prunebench.prune(network(), EXAMPLE, criterion="taylor", images=images)
    assert "\n" not in str(told.value)


def test_a_loss_that_is_no_single_number_is_told() -> None:
    with pytest.raises(PruningError, match=r"loss must return the mean of a batch.*got \[8\]"):
        prunebench.prune(
            network(), EXAMPLE, criterion="taylor", images=(IMAGES, LABELS),
            loss=lambda outputs, labels: cross_entropy(outputs, labels, reduction="none"),
        )  # fmt: skip
