"""InsightFace's packs: what is read, and how damage is reported."""

import pickle
import struct

import pytest

from prunebench.datasets import DatasetSpec
from prunebench.datasets.faces.recordio import Records
from prunebench.datasets.stream import Unreadable
from prunebench.errors import DataError
from prunebench.options import option
from tests.faces import MAGIC_BYTES, face, packed, record, write_bin, write_lfw, write_pack


def casia(path, **changes):
    values = {"path": str(path), "image_size": [32, 32], "workers": 0, "val_size": 3, **changes}
    return option("dataset", "casia_webface", DatasetSpec, **values)


@pytest.fixture
def pack(tmp_path):
    root = write_pack(tmp_path / "pack")
    write_bin(root / "lfw.bin", [True, False] * 10)
    return root


def rows(images):
    """Name and label of each image."""
    names = [images.source.name(int(number)) for number in images.numbers]
    return sorted(zip(names, images.labels.tolist(), strict=True))


def test_a_pack_is_cut_by_the_seed_and_tested_on_lfw(pack):
    data = casia(pack).load()
    assert (data.name, data.classes, data.shape) == ("pack", 3, (3, 32, 32))
    assert (data.mean[0], data.std[0]) == (0.5, 128 / 255)  # (pixel - 127.5) / 128
    assert data.val.labels.bincount().tolist() == [1, 1, 1]
    both = rows(data.train) + rows(data.val)
    assert sorted(both) == sorted((f"train.rec record {n + 1}", n // 4) for n in range(12))
    assert list(data.pairs) == ["lfw"]
    assert data.test is data.pairs["lfw"].images
    assert len(data.test) == 40
    image = data.train.source.read(int(data.train.numbers[0]))
    assert (image.mode, image.size) == ("RGB", (32, 32))


def test_other_bins_are_found(pack):
    write_bin(pack / "agedb_30.bin", [True, False] * 10)
    write_bin(pack / "other.bin", [True, False] * 10)
    assert list(casia(pack).load().pairs) == ["lfw", "agedb_30"]


def test_a_folder_of_identities_is_the_same_set(tmp_path):
    root = tmp_path / "faces"
    for person in ("0000045", "0000099"):
        (root / person).mkdir(parents=True)
        for number in range(3):
            (root / person / f"{number:03}.jpg").write_bytes(face(number))
    write_lfw(root / "lfw")  # no identity
    data = casia(root, val_size=0).load()
    assert data.classes == 2
    assert rows(data.train)[::3] == [("0000045/000.jpg", 0), ("0000099/000.jpg", 1)]
    assert (len(data.train), len(data.val), data.pairs["lfw"].folds) == (6, 0, 10)
    (root / "0000045" / "000.jpg").write_bytes(face(0, 16, 16))
    with pytest.raises(DataError, match=r"0000045/000\.jpg: 16 x 16 is not 32 x 32"):
        casia(root, val_size=0).load()


def test_a_missing_index_is_made_once_and_changes_nothing(pack):
    with_index = rows(casia(pack).load().train)
    before = casia(pack).files["path"]
    (pack / "train.idx").unlink()
    assert rows(casia(pack).load().train) == with_index
    made = pack / ".train.idx"
    first = made.stat().st_mtime_ns
    assert casia(pack).files["path"] == before
    assert rows(casia(pack).load().train) == with_index
    assert made.stat().st_mtime_ns == first


def test_records_that_hold_the_magic_word_are_joined(tmp_path):
    image = b"abcd" + MAGIC_BYTES + b"efgh" + MAGIC_BYTES + MAGIC_BYTES + b"ij"
    payloads = [packed(b"first", 1.0), packed(image, 2.0, 3.0), packed(b"last", 4.0)]
    path = tmp_path / "some.rec"
    path.write_bytes(b"".join(map(record, payloads)))
    assert path.read_bytes().count(MAGIC_BYTES) == 2 + 4
    records = pickle.loads(pickle.dumps(Records.of(path)))
    assert [records.item(key).image for key in range(3)] == [b"first", image, b"last"]
    assert [records.item(key).labels for key in range(3)] == [(1.0,), (2.0, 3.0), (4.0,)]
    with pytest.raises(Unreadable, match="the index does not have it"):
        records.item(3)


def test_a_pack_without_identities_has_its_labels_with_the_images(tmp_path, pack):
    payloads = [packed(face(n), float(n % 2)) for n in range(6)]
    (pack / "train.rec").write_bytes(b"".join(map(record, payloads)))
    (pack / "train.idx").unlink()
    (pack / "property").write_text("2,32,32\n")
    data = casia(pack, val_size=0).load()
    assert [label for _, label in rows(data.train)] == [0, 1] * 3


def test_an_identity_without_images_and_several_labels_are_taken(pack):
    # the label is the first of several; the second identity has no image
    payloads = [packed(b"", 3.0, 6.0)]
    payloads += [packed(face(1), 0.0, 7.0), packed(face(2), 2.0, 7.0)]
    payloads += [packed(b"", 1.0, 2.0), packed(b"", 2.0, 2.0), packed(b"", 2.0, 3.0)]
    (pack / "train.rec").write_bytes(b"".join(map(record, payloads)))
    (pack / "train.idx").unlink()
    data = casia(pack, val_size=0).load()
    assert (data.classes, data.train.labels.tolist()) == (3, [0, 2])


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda root: (root / "property").unlink(), "must hold one line 'identities,height,width'"),
        (lambda root: (root / "property").write_text("3 32 32"), "must hold one line"),
        (
            lambda root: (root / "property").write_text("4,32,32"),
            "says 4 identities; train.rec has",
        ),
        (lambda root: (root / "property").write_text("3,48,32"), "says 48 x 32, but train.rec re"),
        (lambda root: cut(root / "train.rec", 3), "record 15 cannot be read: it is cut short"),
        (lambda root: cut(root / "train.rec", 200), "of 16 records would begin behind its"),
        (lambda root: (root / "train.idx").write_text("0\t0\n1\tone\n"), "is no index of records"),
        (lambda root: (root / "train.idx").write_text("0\t0\n1\t50\n"), "the index has 2 records"),
        (lambda root: (root / "train.idx").write_text("0\t4\n"), "no record begins at byte 4"),
        (lambda root: (root / "lfw.bin").write_bytes(b"none"), "is no verification set"),
    ],
)
def test_a_damaged_pack_is_named(harm, why, pack):
    harm(pack)
    with pytest.raises(DataError, match=why):
        casia(pack).load()


def test_a_truncated_pack_without_an_index_is_named(pack):
    (pack / "train.idx").unlink()
    cut(pack / "train.rec", 3)
    with pytest.raises(DataError, match=r"train\.rec: record 15 is damaged: it is cut short at"):
        casia(pack).load()
    assert not (pack / ".train.idx").exists()


def test_a_single_damaged_image_is_left_to_the_reader(pack):
    raw = (pack / "train.rec").read_bytes()
    source = casia(pack).load().train.source
    begin = int(source.records.offsets[5]) + 8 + 24
    (pack / "train.rec").write_bytes(raw[:begin] + bytes(40) + raw[begin + 40 :])
    source = casia(pack).load().train.source
    with pytest.raises(Unreadable, match="it is no image"):
        source.read(5)
    source.read(6)
    head = int(source.records.offsets[7])
    bad = raw[:head] + struct.pack("<I", 1) + raw[head + 4 :]
    (pack / "other.rec").write_bytes(bad)
    with pytest.raises(DataError, match="record 7 is damaged: no record begins at byte"):
        Records.of(pack / "other.rec")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"path": "nowhere"}, "there is no folder nowhere; it must hold InsightFace's train.rec"),
        ({"lfw": "nowhere"}, "dataset.lfw: there is no file or folder nowhere"),
    ],
)
def test_what_is_not_there_is_named_before_anything_is_read(change, why, pack):
    assert why in casia(**{"path": pack} | change).missing


def test_a_set_without_pairs_says_so(pack):
    (pack / "lfw.bin").unlink()
    assert "has neither lfw.bin nor a folder lfw with pairs.txt" in casia(pack).missing
    (pack / "lfw").mkdir()
    assert "has no pairs.txt; put LFW's list of pairs there" in casia(pack).missing
