"""Batched augmentation, compared with a loop over images; batches depend only on their place."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from prunebench.datasets import Arrays, Data
from prunebench.training.resident import (
    Draws,
    ResidentSplit,
    crop_and_mirror,
    draw_epoch,
)
from prunebench.training.split import steps

CPU = torch.device("cpu")


def normalised(images: torch.Tensor, data: Data) -> torch.Tensor:
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (data.mean, data.std))
    return (images.float() / 255 - mean) / std


def split(n: int, *, channels: int = 3, height: int = 6, width: int = 8) -> Arrays:
    source = torch.Generator().manual_seed(n)
    shape = (n, channels, height, width)
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=source)
    return Arrays(images, torch.arange(n) % 4)


def data(n: int = 21, *, padding: int = 2, flip: bool = True) -> Data:
    return Data(
        name="noise", train=split(n), val=split(7), test=split(5), classes=4,
        mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.15), crop_padding=padding, flip=flip,
    )  # fmt: skip


def epoch(
    whole: Data, batch: int, *, number: int = 0, start: int = 0
) -> list[tuple[Tensor, Tensor]]:
    device = ResidentSplit(whole, whole.train, device=CPU)
    return list(device.training_batches(batch, seed=1, stage="s", epoch=number, start=start))


def test_batches_equal_a_plain_loop_over_torchvision() -> None:
    whole = data()
    drawn = draw_epoch(21, whole, seed=1, stage="s", epoch=0)
    assert drawn.mirrored.any()
    assert not drawn.mirrored.all()
    images = torch.cat([images for images, _ in epoch(whole, 4)])
    labels = torch.cat([labels for _, labels in epoch(whole, 4)])
    for place, index in enumerate(drawn.order.tolist()):
        image = vision.pad(whole.train.images[index], [2, 2, 2, 2])  # black, on raw pixels
        image = vision.crop(image, int(drawn.rows[place]), int(drawn.columns[place]), 6, 8)
        image = vision.hflip(image) if drawn.mirrored[place] else image
        expected = vision.normalize(image.float() / 255, whole.mean, whole.std)
        assert torch.allclose(images[place], expected, atol=1e-6)
        assert labels[place] == whole.train.labels[index]


def test_a_crop_worked_by_hand() -> None:
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    one = torch.tensor([0])

    def crop(row: int, column: int, mirrored: bool) -> list[list[int]]:
        drawn = Draws(one, one + row, one + column, torch.tensor([mirrored]))
        return crop_and_mirror(image, 1, drawn)[0, 0].tolist()

    assert crop(1, 1, False) == [[1, 2], [3, 4]]
    assert crop(1, 1, True) == [[2, 1], [4, 3]]
    assert crop(0, 0, False) == [[0, 0], [0, 1]]
    assert crop(2, 0, False) == [[0, 3], [0, 0]]
    assert crop(2, 0, True) == [[3, 0], [0, 0]]


def test_offsets_and_coins_are_uniform() -> None:
    drawn = draw_epoch(20_000, data(), seed=0, stage="s", epoch=0)
    for offsets in (drawn.rows, drawn.columns):
        counts = torch.bincount(offsets)
        assert len(counts) == 5
        # 5 standard deviations of a binomial with p = 1/5
        assert (counts - 4000).abs().max() < 5 * (20_000 * 0.2 * 0.8) ** 0.5
    assert abs(int(drawn.mirrored.sum()) - 10_000) < 5 * (20_000 * 0.25) ** 0.5
    assert sorted(drawn.order.tolist()) == list(range(20_000))


def test_without_flip_and_padding_images_only_change_order() -> None:
    whole = data(padding=0, flip=False)
    drawn = draw_epoch(21, whole, seed=1, stage="s", epoch=0)
    images = torch.cat([images for images, _ in epoch(whole, 4)])
    assert torch.equal(images, normalised(whole.train.images[drawn.order], whole))
    assert not draw_epoch(
        99, replace(whole, crop_padding=2), seed=1, stage="s", epoch=0
    ).mirrored.any()


def test_an_epoch_begun_in_the_middle_goes_on_with_the_same_batches() -> None:
    whole = data()
    for start in range(7):
        rest = epoch(whole, 4, start=start)
        for (images, labels), (images_2, labels_2) in zip(
            epoch(whole, 4)[start:], rest, strict=True
        ):
            assert torch.equal(images, images_2)
            assert torch.equal(labels, labels_2)


def test_each_epoch_stage_and_seed_draws_anew() -> None:
    whole = data()
    first = draw_epoch(21, whole, seed=1, stage="s", epoch=0)
    others = [
        draw_epoch(21, whole, seed=1, stage="s", epoch=1),
        draw_epoch(21, whole, seed=1, stage="t", epoch=0),
        draw_epoch(21, whole, seed=2, stage="s", epoch=0),
    ]
    assert torch.equal(first.order, draw_epoch(21, whole, seed=1, stage="s", epoch=0).order)
    for other in others:
        assert not torch.equal(first.order, other.order)
        assert not torch.equal(first.rows, other.rows)


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),  # the rest is kept
        (9, 4, [4, 5]),  # one image alone is joined to the batch before
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_every_image_comes_once(n: int, batch: int, sizes: list[int]) -> None:
    whole = data(n)
    batches = epoch(whole, batch)
    assert [len(labels) for _, labels in batches] == sizes
    assert steps(len(whole.train), batch) == len(sizes)
    labels = torch.cat([labels for _, labels in batches])
    assert sorted(labels.tolist()) == sorted(whole.train.labels.tolist())


def test_other_splits_come_in_order_and_unaugmented() -> None:
    whole = data()
    val = ResidentSplit(whole, whole.val, device=CPU)
    images = torch.cat([images for images, _ in val.batches(3)])
    labels = torch.cat([labels for _, labels in val.batches(3)])
    mean, std = torch.tensor(whole.mean)[:, None, None], torch.tensor(whole.std)[:, None, None]
    assert torch.allclose(images, (whole.val.images / 255 - mean) / std, atol=1e-6)
    assert torch.equal(labels, whole.val.labels)


def test_a_sample_is_seeded_and_unaugmented() -> None:
    whole = data()
    train = ResidentSplit(whole, whole.train, device=CPU)
    rows, labels = train.sample(8, seed=3)
    again, _ = train.sample(8, seed=3)
    more, _ = train.sample(99, seed=3)
    images, other = rows[:], train.sample(8, seed=4)[0][:]
    assert torch.equal(images, again[:])
    assert torch.equal(more[:8], images)
    assert torch.equal(more[3:5], images[3:5])
    assert (len(rows), len(more)) == (8, 21)
    assert not torch.equal(images, other)
    plain = normalised(whole.train.images, whole)
    for image, label in zip(images, labels, strict=True):
        found = [i for i in range(21) if torch.equal(plain[i], image)]
        assert whole.train.labels[found[0]] == label


def test_an_augmented_sample_is_of_the_same_images_cropped_and_mirrored() -> None:
    whole = data()
    train = ResidentSplit(whole, whole.train, device=CPU)
    rows, _ = train.sample(8, seed=3)
    shown = rows.augmented(3)
    images, places = shown[:], rows.places
    assert len(shown) == 8
    assert torch.equal(torch.cat([shown[:3], shown[3:]]), images)
    assert torch.equal(rows.augmented(3)[:], images)
    assert not torch.equal(rows.augmented(4)[:], images)
    padded = torch.zeros(8, 3, 6 + 4, 8 + 4, dtype=torch.uint8)
    padded[:, :, 2:8, 2:10] = whole.train.images[places]
    for image, source in zip(images, padded, strict=True):
        crops = [source[:, y : y + 6, x : x + 8] for y in range(5) for x in range(5)]
        every = torch.stack([*crops, *[crop.flip(-1) for crop in crops]])
        assert any(torch.equal(crop, image) for crop in normalised(every, whole))
    assert not torch.equal(images, rows[:])


def test_a_balanced_sample_holds_as_many_of_each_class_as_long_as_they_last() -> None:
    whole = data()
    classes = torch.tensor([0] * 2 + [1] * 4 + [2] * 6 + [3] * 9)
    whole = replace(whole, train=replace(whole.train, labels=classes))
    train = ResidentSplit(whole, whole.train, device=CPU)
    for count, of_each in ((4, [1, 1, 1, 1]), (8, [2, 2, 2, 2]), (18, [2, 4, 6, 6])):
        rows, labels = train.sample(count, seed=3, balanced=True)
        assert len(rows) == count
        assert torch.bincount(labels).tolist() == of_each
    rows = train.sample(18, seed=3, balanced=True)[0]
    again = train.sample(18, seed=3, balanced=True)[0][:]
    assert torch.equal(rows[:], again)
    assert not torch.equal(train.sample(18, seed=4, balanced=True)[0][:], again)


def test_channels_last_changes_strides_only() -> None:
    whole = data()
    plain = ResidentSplit(whole, whole.train, device=CPU)
    turned = ResidentSplit(whole, whole.train, device=CPU, channels_last=True)
    for one, two in zip(
        plain.training_batches(4, seed=0, stage="s", epoch=0),
        turned.training_batches(4, seed=0, stage="s", epoch=0),
        strict=True,
    ):
        assert torch.equal(one[0], two[0])
        assert one[0].is_contiguous()
        assert two[0].is_contiguous(memory_format=torch.channels_last)
