"""Splits a data set into parts small enough to carry one by one: lossless WebP strips.

    python scripts/device/parts.py pack ARCHIVE.npz FOLDER [--parts 2]    FOLDER/1, FOLDER/2, ...
    python scripts/device/parts.py join FOLDER ARCHIVE.npz                the same arrays again

ARCHIVE holds train_images, train_labels, test_images and test_labels, as dataset=npz reads them.
CIFAR-10 takes 184 MB in it and 100 MB in parts.
"""

import argparse
import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

#: images stacked in a strip: WebP allows at most 16,383 rows
STRIP = 500
SPLITS = ("train", "test")


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Returns a digest over all arrays."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(np.ascontiguousarray(arrays[name]).data)
    return found.hexdigest()


def packed(images: np.ndarray) -> np.ndarray:
    """Returns uint8 [n, H, W, 3] images as the bytes of one WebP picture."""
    file = io.BytesIO()
    strip = Image.fromarray(images.reshape(-1, *images.shape[2:]))
    strip.save(file, "webp", lossless=True, quality=50, method=4)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def unpacked(picture: np.ndarray, height: int) -> np.ndarray:
    """Returns the images in a picture that `packed` made, each of this height."""
    strip = np.asarray(Image.open(io.BytesIO(picture.tobytes())).convert("RGB"))
    return strip.reshape(-1, height, *strip.shape[1:])


def pack(archive: Path, folder: Path, parts: int) -> None:
    """Writes the parts; the first also has the labels and a digest."""
    with np.load(archive, allow_pickle=False) as file:
        arrays = {
            f"{s}_{kind}": file[f"{s}_{kind}"] for s in SPLITS for kind in ("images", "labels")
        }
    strips = {
        f"{split}-{start:06d}": packed(arrays[f"{split}_images"][start : start + STRIP])
        for split in SPLITS
        for start in range(0, len(arrays[f"{split}_images"]), STRIP)
    }
    labels = {name: arrays[name] for name in arrays if name.endswith("labels")}
    about = {"digest": np.array(digest(arrays)), "height": np.array(arrays["test_images"].shape[1])}
    for number in range(parts):
        own = {name: strips[name] for name in sorted(strips)[number::parts]}
        path = folder / str(number + 1) / f"{archive.stem}-{number + 1}-of-{parts}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **own, **(labels | about if number == 0 else {}))
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def join(folder: Path, archive: Path) -> None:
    """Writes the archive from its parts in `folder`.

    Raises:
        SystemExit: a part is missing or damaged.
    """
    paths = sorted(folder.glob(f"{archive.stem}-*-of-*.npz"))
    if not paths or len(paths) < int(paths[0].stem.rpartition("-")[2]):
        raise SystemExit(f"{folder} has {len(paths)} parts of {archive.name}: not all of them")
    found: dict[str, np.ndarray] = {}
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            found |= dict(file)
    height, wanted = int(found.pop("height")), str(found.pop("digest"))
    arrays = {name: found.pop(name) for name in list(found) if name.endswith("labels")}
    for split in SPLITS:
        own = [unpacked(found[name], height) for name in sorted(found) if name.startswith(split)]
        arrays[f"{split}_images"] = np.concatenate(own)
    if digest(arrays) != wanted:
        raise SystemExit(f"{folder}: the parts of {archive.name} are damaged")
    archive.parent.mkdir(parents=True, exist_ok=True)
    np.savez(archive, allow_pickle=False, **arrays)


def main() -> None:
    """Packs or joins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pack", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--parts", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "pack":
        pack(asked.source, asked.target, asked.parts)
    else:
        join(asked.source, asked.target)


if __name__ == "__main__":
    main()
