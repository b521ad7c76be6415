"""Writes small sets of faces in the formats that users have: packs, bins, folders, pair lists."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

from tests.photographs import photograph

MAGIC = 0xCED7230A


def face(seed: int, height: int = 32, width: int = 32) -> bytes:
    """Returns an encoded picture; each seed gives another one."""
    buffer = io.BytesIO()
    photograph(seed, width, height).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_lfw(root: Path, folds: int = 10, each: int = 1, size: tuple[int, int] = (32, 32)) -> Path:
    """Writes people, each with as many images as a fold's pairs need, and ``pairs.txt``."""
    lines = [f"{folds}\t{each}"]
    for fold in range(folds):
        for number in range(each):
            one, other = (f"{name}_{fold}_{number}" for name in ("Ann", "Bo"))
            for place, person in enumerate((one, one, other)):
                (root / person).mkdir(parents=True, exist_ok=True)
                number_of = 2 if place == 1 else 1
                path = root / person / f"{person}_{number_of:04d}.jpg"
                path.write_bytes(face(hash((fold, number, place)) % 2**31, *size))
        pairs = [(f"Ann_{fold}_{n}", f"Bo_{fold}_{n}") for n in range(each)]
        lines += [f"{one}\t1\t2" for one, _ in pairs]
        lines += [f"{one}\t1\t{other}\t1" for one, other in pairs]
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


def write_bin(path: Path, same: Sequence[bool], size: tuple[int, int] = (32, 32)) -> Path:
    """Writes InsightFace's pickle for Python 2, with bytes by way of ``_codecs.encode``."""
    images = [face(seed, *size) for seed in range(2 * len(same))]
    path.write_bytes(pickle.dumps((images, list(same)), protocol=2))
    return path


def chunk(payload: bytes, flag: int = 0) -> bytes:
    """Returns one part of a record."""
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("<II", MAGIC, flag << 29 | len(payload)) + payload + padding


def packed(content: bytes, *labels: float) -> bytes:
    """Returns a record's payload, with one label in the header or several after it."""
    flag, label = (len(labels), 0.0) if len(labels) > 1 else (0, labels[0])
    more = struct.pack(f"<{len(labels)}f", *labels) if flag else b""
    return struct.pack("<IfQQ", flag, label, 0, 0) + more + content


def record(payload: bytes) -> bytes:
    """Returns a record as RecordIO writes it: split at magic numbers in its content."""
    words = [at for at in range(0, len(payload) - 3, 4) if payload[at : at + 4] == MAGIC_BYTES]
    if not words:
        return chunk(payload)
    cuts = [0, *(at + 4 for at in words)]
    ends = [*words, len(payload)]
    flags = [1, *[2] * (len(words) - 1), 3]
    return b"".join(chunk(payload[a:b], flag) for a, b, flag in zip(cuts, ends, flags, strict=True))


MAGIC_BYTES = struct.pack("<I", MAGIC)


def write_pack(
    root: Path, people: int = 3, each: int = 4, size: tuple[int, int] = (32, 32)
) -> Path:
    """Writes ``train.rec``, ``train.idx`` and ``property`` as InsightFace's tools do."""
    root.mkdir(parents=True, exist_ok=True)
    count = people * each
    payloads = [packed(b"", count + 1.0, count + 1.0 + people)]
    payloads += [packed(face(n, *size), float(n // each)) for n in range(count)]
    payloads += [packed(b"", 1.0 + p * each, 1.0 + (p + 1) * each) for p in range(people)]
    index, raw = [], b""
    for key, payload in enumerate(payloads):
        index.append(f"{key}\t{len(raw)}\n")
        raw += record(payload)
    (root / "train.rec").write_bytes(raw)
    (root / "train.idx").write_text("".join(index))
    (root / "property").write_text(f"{people},{size[0]},{size[1]}\n")
    return root
