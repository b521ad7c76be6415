"""Streamed splits: a batch depends only on its place, whichever process reads it."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from prunebench.datasets import Data
from prunebench.errors import ConfigError, DataError
from prunebench.reproducibility import seed_for
from prunebench.training.batches import split_on
from prunebench.training.readers import Batch, Fetched, Fetcher, Reader
from prunebench.training.streamed import StreamedSplit
from tests.photographs import folder, photograph, write_tree

CPU = torch.device("cpu")
EPOCH = {"seed": 1, "stage": "s", "epoch": 2}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), {"train": 5, "val": 2, "test": 2})


def streamed(data: Data, part: str = "train", **loading) -> StreamedSplit:
    images = getattr(data, part)
    images = replace(images, loading=replace(images.loading, **loading))
    split = split_on(CPU, data, images)
    assert isinstance(split, StreamedSplit)
    return split


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(some, others, strict=True)
    )


def test_batches_equal_a_plain_loop_over_torchvision(tree):
    data = folder(tree).load()
    split = streamed(data)
    order = torch.randperm(
        15, generator=torch.Generator().manual_seed(seed_for(1, "s", "epoch", 2))
    )
    crop = v2.Compose([v2.RandomResizedCrop(8), v2.RandomHorizontalFlip()])
    plain, expected = [], []
    for place in order.tolist():
        number = int(data.train.numbers[place])
        image = Image.open(tree / data.train.source.name(number)).convert("RGB")
        torch.manual_seed(seed_for(1, "s", 2, "image", number))
        image = v2.functional.to_dtype(v2.functional.pil_to_tensor(crop(image)), scale=True)
        plain.append(v2.functional.normalize(image, list(data.mean), list(data.std)))
        expected.append(data.train.labels[place])
    images, labels = zip(*split.training_batches(4, **EPOCH), strict=True)
    assert [len(some) for some in labels] == [4, 4, 4, 3]
    assert torch.allclose(torch.cat(images), torch.stack(plain), atol=1e-6)
    assert torch.equal(torch.cat(labels), torch.stack(expected))


def test_plain_batches_are_the_middle_of_each_image_in_stored_order(tree):
    data = folder(tree, crop=0.8, interpolation="bicubic").load()
    view = v2.Compose([v2.Resize(10, v2.InterpolationMode.BICUBIC), v2.CenterCrop(8)])
    images, labels = zip(*streamed(data, "test").batches(4), strict=True)
    paths = sorted((tree / "test").rglob("*.JPEG"))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (data.mean, data.std))
    plain = [v2.functional.pil_to_tensor(view(Image.open(path))) / 255 for path in paths]
    assert torch.allclose(torch.cat(images), (torch.stack(plain) - mean) / std, atol=1e-6)
    assert torch.cat(labels).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
def test_whoever_reads_the_batches_are_the_same_and_so_after_a_kill(tree):
    """0, 1 and 3 loader processes; from the start, from the middle, and after an epoch left."""
    data = folder(tree).load()
    torch.manual_seed(0)
    whole = list(streamed(data).training_batches(4, **EPOCH))
    untouched = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(untouched, torch.rand(1))  # torch's own generator is left alone
    assert len({some.sum().item() for some, _ in whole}) == 4
    for workers in (0, 1, 3):
        split = streamed(data, workers=workers)
        left = split.training_batches(4, **{**EPOCH, "epoch": 0})
        next(left)
        left.close()
        assert same(list(split.training_batches(4, **EPOCH)), whole)
        assert same(list(split.training_batches(4, start=2, **EPOCH)), whole[2:])
        assert same([batch for batch in split.batches(4)], list(streamed(data).batches(4)))


def test_another_epoch_stage_or_seed_is_another_draw(tree):
    split = streamed(folder(tree).load())
    first = torch.cat([images for images, _ in split.training_batches(4, **EPOCH)])
    for change in ({"epoch": 3}, {"stage": "t"}, {"seed": 2}):
        other = split.training_batches(4, **{**EPOCH, **change})
        assert not torch.equal(torch.cat([images for images, _ in other]), first)


def test_a_sample_reads_the_images_it_needs_and_no_others(tree, monkeypatch):
    data = folder(tree).load()
    read = []
    kind = type(data.train.source)
    original = kind.read
    monkeypatch.setattr(kind, "read", lambda self, n: read.append(n) or original(self, n))
    images, labels = streamed(data).sample(6, seed=3)
    assert len(read) == len({*read}) == len(images) == len(labels) == 6
    assert images[1:3].shape == (2, 3, 8, 8)
    assert torch.equal(torch.cat([images[:4], images[4:9]]), images[:])
    assert images[6:].shape == (0, 3, 8, 8)
    assert len(read) == 6
    again, _ = streamed(data).sample(6, seed=3)
    other, _ = streamed(data).sample(6, seed=4)
    assert torch.equal(again[:], images[:])
    assert not torch.equal(other[:], images[:])
    monkeypatch.setattr("prunebench.training.streamed.SAMPLE_BYTES", 8 * 8 * 3)
    monkeypatch.setattr("prunebench.training.streamed.SAMPLE_BATCH", 2)
    read_again, same_labels = streamed(data).sample(6, seed=3)
    assert torch.equal(read_again[:], images[:])
    assert torch.equal(read_again[1:5], images[1:5])
    assert torch.equal(same_labels, labels)
    assert len(streamed(data).sample(99, seed=3)[0]) == 15


def test_an_augmented_sample_is_drawn_as_in_training(tree):
    data = folder(tree).load()
    rows, labels = streamed(data).sample(6, seed=3)
    shown = rows.augmented(3)
    images = shown[:]
    epoch = streamed(data).training_batches(4, seed=3, stage="sample", epoch=0)
    every = torch.cat([images for images, _ in epoch])
    assert len(shown) == 6
    assert all(any(torch.equal(image, other) for other in every) for image in images)
    assert torch.equal(torch.cat([shown[:4], shown[4:]]), images)
    assert not torch.equal(images, rows[:])


def pixels(split):
    """All images of an epoch as they are seen, in no order."""
    return {x.numpy().tobytes() for images, _ in split.training_batches(4, **EPOCH) for x in images}


def damage(tree, *names):
    whole = (tree / names[0]).read_bytes()
    (tree / names[0]).write_bytes(whole[: len(whole) // 2])
    for name in names[1:]:
        (tree / name).write_bytes(b"")


def test_damaged_images_are_left_out_counted_and_told_once(tmp_path):
    tree = write_tree(tmp_path, {"train": 5, "val": 2, "test": 2})
    whole = folder(tree).load()
    intact = pixels(streamed(whole))
    damage(tree, "train/cat/3.JPEG", "train/eel/0.JPEG")
    data = folder(tree, allow_damaged=0.2).load()
    told = []
    data.damaged.tell = lambda name, why: told.append((name, why))
    for workers in (0, 2):
        split = streamed(data, workers=workers)
        assert sum(len(labels) for _, labels in split.training_batches(4, **EPOCH)) == 13
        assert sum(len(labels) for _, labels in split.batches(4)) == 13
        images, labels = split.sample(13, seed=0)
        assert len(images) == len(labels) == 13
    assert pixels(streamed(data)) < intact
    with pytest.raises(DataError, match="none of the images of a training batch can be read"):
        list(streamed(data).training_batches(1, **EPOCH))
    assert sorted(name for name, _ in told) == ["train/cat/3.JPEG", "train/eel/0.JPEG"]
    assert all("tmp" not in why for _, why in told)
    assert data.damaged.found == dict(told)
    few = streamed(data, allow_damaged=0.1)
    with pytest.raises(
        DataError, match="2 of 15 images could not be read, more than dataset.allow"
    ):
        list(few.batches(4))


ALL = torch.arange(15)
DRAWS = [None, (1, "s", 2), (1, "s", 3)]


@pytest.mark.parametrize("draw", DRAWS, ids=["plain", "epoch 2", "epoch 3"])
@pytest.mark.parametrize("changes", [{}, {"augment": "square", "fit": "squeeze"}], ids=str)
def test_a_device_that_decodes_shows_what_loader_processes_show(tmp_path, draw, changes):
    """The same part of each image; a PNG, a gray image, damage and a missing file among them."""
    tree = write_tree(tmp_path, {"train": 5, "val": 2, "test": 2})
    photograph(7).save(tree / "train" / "cat" / "0.JPEG", format="PNG")
    photograph(8).convert("L").save(tree / "train" / "cat" / "1.JPEG")
    photograph(9).convert("CMYK").save(tree / "train" / "cat" / "2.JPEG")
    stream = folder(tree, decode="gpu", **changes).load().train
    (tree / "train" / "dog" / "1.JPEG").write_bytes(b"\xff\xd8\xff and no more")
    (tree / "train" / "dog" / "2.JPEG").unlink()
    assert stream.files is not None
    before = torch.random.get_rng_state()
    by_pillow = Reader(stream)[Batch(ALL, draw)]
    fetcher = Fetcher(stream, stream.files)
    fetched = fetcher[Batch(ALL, draw)]
    assert sorted({image.dim() for image in fetched.images}) == [1, 3]  # a PNG is there as pixels
    found = fetcher.finished(fetched, CPU)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(found.places, by_pillow.places)
    assert len(found.places) == 13
    assert {name for name, _ in found.damaged} == {"train/dog/1.JPEG", "train/dog/2.JPEG"}
    assert found.images.shape == by_pillow.images.shape == (13, 3, 8, 8)
    difference = (found.images.int() - by_pillow.images.int()).abs()
    assert difference.float().mean() < 1.0
    assert difference.max() <= 6
    assert by_pillow.images.float().std() > 30  # which is no small part of what is seen


def test_a_batch_without_any_image_left_is_empty(tree):
    stream = folder(tree, decode="gpu").load().train
    nothing = Fetched([], torch.empty(0, dtype=torch.int64), [("x", "gone")], None)
    assert stream.files is not None
    assert Fetcher(stream, stream.files).finished(nothing, CPU).images.shape == (0, 3, 8, 8)


def test_decoding_on_a_gpu_takes_one(tree):
    with pytest.raises(ConfigError, match="this run is on cpu; leave it at dataset.decode=cpu"):
        streamed(folder(tree, decode="gpu").load())
    with pytest.raises(ConfigError, match="no interpolation=lanczos on a GPU"):
        folder(tree, decode="gpu", interpolation="lanczos")


@pytest.mark.gpu
def test_a_gpu_decodes_what_pillow_does(tmp_path):
    # colours in full size: how smaller ones are enlarged is each decoder's own, 8 levels apart
    tree = write_tree(tmp_path, {"train": 5, "val": 2, "test": 2}, subsampling=0)
    cuda = torch.device("cuda", 0)
    data = folder(tree, decode="gpu").load()
    by_gpu = split_on(cuda, data, data.train)
    by_cpu = streamed(folder(tree).load())
    some, others = (list(split.training_batches(4, **EPOCH)) for split in (by_gpu, by_cpu))
    assert len(some) == len(others) == 4
    for (images, labels), (plain, same_labels) in zip(some, others, strict=True):
        assert images.device == cuda
        assert torch.equal(labels.cpu(), same_labels)
        assert (images.cpu() - plain).abs().mean() < 0.05
