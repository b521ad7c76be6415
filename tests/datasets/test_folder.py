"""``dataset=folder`` and ``dataset=imagenet``: layouts, splits, lists of labels, mistakes."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from prunebench.datasets import DatasetSpec
from prunebench.datasets.stream import Unreadable
from prunebench.datasets.views import Preset
from prunebench.errors import ConfigError, DataError
from prunebench.options import option
from tests.photographs import folder, photograph, write_tree

WNIDS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "mine", {"train": 10, "val": 2, "test": 3})


def names(images):
    return [images.source.name(int(number)) for number in images.numbers]


def imagenet(path, **changes):
    values = {"path": str(path), "image_size": 8, "workers": 0, "val_size": 6, **changes}
    return option("dataset", "imagenet", DatasetSpec, **values)


def test_three_folders_are_taken_as_they_are(tree):
    data = folder(tree).load()
    assert (data.name, data.classes, data.shape) == ("mine", 3, (3, 8, 8))
    assert [len(part) for part in (data.train, data.val, data.test)] == [30, 6, 9]
    assert names(data.val) == [f"val/{c}/{i}.JPEG" for c in ("cat", "dog", "eel") for i in (0, 1)]
    assert data.val.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.mean == (0.485, 0.456, 0.406)


def test_without_test_images_those_of_val_are_the_test_set(tree):
    shutil.rmtree(tree / "test")
    data = folder(tree, val_size=6).load()
    assert all(name.startswith("val/") for name in names(data.test))
    assert {name.split("/")[0] for name in names(data.train) + names(data.val)} == {"train"}
    assert not {*names(data.train)} & {*names(data.val)}
    assert data.val.labels.bincount().tolist() == [2, 2, 2]
    assert data.train.labels.bincount().tolist() == [8, 8, 8]


def test_class_folders_alone_are_cut_by_the_seed(tree):
    cut = {"val_size": 6, "test_size": 9, "train_size": 9}
    data, again, other = (
        folder(tree / "train", **cut, split_seed=seed).load() for seed in (0, 0, 1)
    )
    assert [len(part) for part in (data.train, data.val, data.test)] == [9, 6, 9]
    parts = [{*names(part)} for part in (data.train, data.val, data.test)]
    assert len(set.union(*parts)) == 24
    assert names(again.test) == names(data.test) != names(other.test)
    assert data.train.labels.bincount().tolist() == [3, 3, 3]


def test_hidden_files_and_others_are_no_images(tree):
    (tree / "train" / ".cache" / "x").mkdir(parents=True)
    (tree / "train" / "cat" / "._0.JPEG").write_bytes(b"")
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    (tree / "train" / "dog" / "more").mkdir()
    photograph(99).save(tree / "train" / "dog" / "more" / "z.PNG")
    data = folder(tree).load()
    assert len(data.train) == 31
    assert "train/dog/more/z.PNG" in names(data.train)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def test_every_mode_is_read_as_pillow_converts_it(tmp_path):
    colour = photograph(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    deep = Image.fromarray((np.arange(320).reshape(16, 20) * 200).astype("uint16"))
    files = [
        saved(tmp_path / "gray.jpg", colour.convert("L")),
        saved(tmp_path / "cmyk.jpg", colour.convert("CMYK")),
        saved(tmp_path / "rgba.png", colour.convert("RGBA")),
        saved(tmp_path / "palette.png", colour.convert("P")),
        saved(tmp_path / "turned.jpg", colour, exif=exif),
        saved(tmp_path / "deep.png", deep),
        saved(tmp_path / "two.tiff", colour.convert("1")),
    ]
    for name in ("a", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    for path in files:
        path.rename(tmp_path / "tree" / "a" / path.name)
    saved(tmp_path / "tree" / "b" / "0.png", colour)
    stream = folder(tmp_path / "tree", test_size=0, val_size=0).load().train
    for number, name in zip(stream.numbers.tolist(), names(stream), strict=True):
        plain = Image.open(tmp_path / "tree" / name).convert("RGB")
        assert np.array_equal(np.asarray(stream.source.read(number)), np.asarray(plain)), name
    assert len(stream) == 8


def test_what_cannot_be_read_says_why(tree):
    (tree / "train" / "cat" / "0.JPEG").write_bytes(b"")
    source = folder(tree).load().train.source
    with pytest.raises(Unreadable, match="cannot identify image file"):
        source.read(0)
    (tree / "train" / "cat" / "1.JPEG").unlink()
    with pytest.raises(Unreadable, match="No such file"):
        source.read(1)


def flat_imagenet(root):
    """Training images in folders; six validation images in none. Returns the latter's wnids."""
    write_tree(root, {"train": 10}, WNIDS)
    truth = [WNIDS[i] for i in (2, 0, 1, 1, 0, 2)]
    (root / "val").mkdir()
    for number in range(6):
        image = root / "val" / f"ILSVRC2012_val_{number + 1:08}.JPEG"
        photograph(1000 + number).save(image)
    return truth


STEM = "ILSVRC2012_val_{:08}"
#: name of a list -> its text, from number and wnid of every image
LISTS = {
    "LOC_val_solution.csv": lambda rows: "ImageId,PredictionString\n"
    + "".join(f"{STEM.format(n)},{w} 85 1 499 272 {w} 1 2 3 4 \n" for n, w in reversed(rows)),
    "imagenet_2012_validation_synset_labels.txt": lambda rows: "".join(f"{w}\n" for _, w in rows),
    "val.txt": lambda rows: "".join(
        f"{STEM.format(n)}.JPEG {WNIDS.index(w)}\n" for n, w in rows
    ),
    "val/val_annotations.txt": lambda rows: "".join(
        f"{STEM.format(n)}.JPEG\t{w}\t0\t32\t44\t62\n" for n, w in rows
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_flat_val_is_understood_with_a_list_beside_it(tmp_path, name):
    truth = flat_imagenet(tmp_path)
    (tmp_path / name).write_text(LISTS[name](list(enumerate(truth, start=1))))
    data = imagenet(tmp_path).load()
    assert data.test.labels.tolist() == [WNIDS.index(wnid) for wnid in truth]
    assert names(data.test)[0] == "val/ILSVRC2012_val_00000001.JPEG"
    assert [len(data.train), len(data.val)] == [24, 6]


def test_the_devkit_counts_in_its_own_order(tmp_path):
    truth = flat_imagenet(tmp_path)
    lists = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    lists.mkdir(parents=True)
    own = {WNIDS[0]: 3, WNIDS[1]: 1, WNIDS[2]: 2}
    text = "".join(f"{own[wnid]}\n" for wnid in truth)
    (lists / "ILSVRC2012_validation_ground_truth.txt").write_text(text)
    with pytest.raises(DataError, match=r"meta\.mat is not beside it"):
        imagenet(tmp_path).load()
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    table = np.array([(number, wnid, "fish") for wnid, number in own.items()], dtype=fields)
    savemat(lists / "meta.mat", {"synsets": table})
    assert imagenet(tmp_path).load().test.labels.tolist() == [WNIDS.index(w) for w in truth]


def test_tiny_imagenet_is_recognised(tmp_path):
    write_tree(tmp_path, {"train": 4}, tuple(f"{wnid}/images" for wnid in WNIDS))
    for part in ("val", "test"):
        (tmp_path / part / "images").mkdir(parents=True)
        for number in range(3):
            photograph(number).save(tmp_path / part / "images" / f"{part}_{number}.JPEG")
    rows = [f"val_{n}.JPEG\t{WNIDS[n]}\t0\t32\t44\t62" for n in (2, 0, 1)]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(rows))
    (tmp_path / "wnids.txt").write_text("\n".join(WNIDS))
    data = folder(tmp_path, val_size=3).load()
    assert names(data.test) == [f"val/images/val_{n}.JPEG" for n in range(3)]
    assert data.test.labels.tolist() == [0, 1, 2]
    assert [len(data.train), len(data.val)] == [9, 3]


def test_views_come_from_the_weights_unless_they_are_set(tree):
    preset = Preset(size=16, crop=0.5, interpolation="bicubic", mean=(0.1,) * 3, std=(0.2,) * 3)
    spec = folder(tree, image_size=None, interpolation="nearest", std=[0.3, 0.4, 0.5])
    shown = spec.suited(preset)
    assert (shown.image_size, shown.crop, shown.interpolation) == (16, 0.5, "nearest")
    assert (shown.mean, shown.std) == ([0.1] * 3, [0.3, 0.4, 0.5])
    plain = spec.suited(None)
    assert (plain.image_size, plain.crop, plain.mean[0]) == (224, 0.875, 0.485)
    assert shown.load().shape == (3, 16, 16)


def test_squeezed_images_show_all_of_their_width_and_training_a_square_of_it(tree):
    """By hand with Pillow: both sides to 10 pixels, a square of 8 of them."""
    image = photograph(5, width=40, height=20)
    asked = {"fit": "squeeze", "augment": "square", "crop": 0.8, "flip": False}
    stream = folder(tree, **asked).load().train
    small = np.asarray(image.resize((10, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(stream.plain(image)), small[1:9, 1:9])
    squares = [small[y : y + 8, x : x + 8].tobytes() for y in range(3) for x in range(3)]
    torch.manual_seed(0)
    seen = {np.asarray(stream.training(image)).tobytes() for _ in range(60)}
    assert seen <= {*squares}
    assert len(seen) > 5
    shorter = folder(tree, augment="square", crop=0.8).load().train
    wide = np.asarray(image.resize((20, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(shorter.plain(image)), wide[1:9, 6:14])


MISTAKES = {
    "must hold at least two": lambda root: shutil.rmtree(root / "train")
    or (root / "train").mkdir(),
    r"train/cat holds no images \(\.jpg": lambda root: [
        path.unlink() for path in (root / "train" / "cat").iterdir()
    ],
    r"val has 2 classes and the training set 3; they must be the same, and 'eel'": lambda root: (
        shutil.rmtree(root / "val" / "eel")
    ),
    "has test/ but no train/; set dataset.train=FOLDER": lambda root: shutil.rmtree(root / "train"),
    "holds 9 images, and not in folders named like": lambda root: [
        path.rename(path.with_name(f"other {path.name}")) for path in [*(root / "test").iterdir()]
    ],
    "it holds archives: unpack them": lambda root: [
        shutil.rmtree(root / "train"), (root / "train").mkdir(), (root / "train" / "a.tar").touch()
    ],
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_what_does_not_fit_is_said(tree, message):
    MISTAKES[message](tree)
    with pytest.raises(DataError, match=message) as caught:
        folder(tree).load()
    assert "\n" not in str(caught.value)


def test_lists_that_do_not_fit_are_named(tmp_path):
    truth = flat_imagenet(tmp_path)
    path = tmp_path / "own.txt"
    spec = imagenet(tmp_path, labels=str(path))
    assert "no file" in spec.missing
    rows = [f"{STEM.format(n)} {w}" for n, w in enumerate(truth, start=1)]
    path.write_text("\n".join(rows[1:]))
    with pytest.raises(DataError, match="has no line for ILSVRC2012_val_00000001.JPEG"):
        spec.load()
    path.write_text("\n".join([*rows[1:], "ILSVRC2012_val_00000001 n09999999"]))
    with pytest.raises(DataError, match="names 'n09999999', which is none of the 3 classes"):
        spec.load()
    path.write_text("\n".join(truth[1:]))
    with pytest.raises(DataError, match="has 5 lines, and there are 6 images"):
        spec.load()
    path.write_text("\n".join(truth))
    assert spec.load().test.labels.tolist() == [WNIDS.index(wnid) for wnid in truth]


@pytest.mark.parametrize(
    ("key", "value"),
    [("crop", 1.5), ("scale", [0.5]), ("ratio", [2.0, 1.0]), ("mean", [0.5]), ("workers", -1)],
)
def test_ranges_are_checked(tree, key, value):
    with pytest.raises(ConfigError, match=key):
        folder(tree, **{key: value})


def test_missing_folders_are_said(tmp_path):
    assert "there is no folder" in folder(tmp_path / "nowhere").missing
    assert "dataset.test: there is no folder" in folder(tmp_path, test="valid").missing
    assert folder(tmp_path).missing == ""


def test_a_tenth_is_cut_unless_it_is_said_how_many(tree):
    data = folder(tree / "train").load()
    assert [len(part) for part in (data.train, data.val, data.test)] == [24, 3, 3]
    assert len(folder(tree / "train", val_size=0, test_size=0).load().val) == 0
    with pytest.raises(DataError, match="leave none of 30 images to train with"):
        folder(tree / "train", val_size=20, test_size=10).load()
