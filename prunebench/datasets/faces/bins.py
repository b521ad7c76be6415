"""Reads InsightFace's verification sets: ``lfw.bin``, ``agedb_30.bin``, ``cfp_fp.bin`` etc.

Each is a pickle, of Python 2 or 3, with encoded images and one bool per pair: images 2k and 2k + 1
are pair k. A pickle can run code; the reader here allows none.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.datasets.faces.aligned import decoded
from prunebench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

#: number of folds
FOLDS = 10
#: names of the sets that InsightFace ships beside its packs
KNOWN = ("lfw", "cfp_fp", "cfp_ff", "agedb_30", "calfw", "cplfw", "vgg2_fp")


@dataclass(frozen=True)
class BinImages:
    """Reads the images of a bin; a `Source`. Each process reads the file once.

    Attributes:
        path: of the file.
        size: (height, width) that the network sees.
    """

    path: str
    size: tuple[int, int]

    def name(self, number: int) -> str:
        """Returns the file's name and the image's number."""
        return f"{Path(self.path).name} image {number}"

    def read(self, number: int) -> Image:
        """Returns image `number`.

        Raises:
            Unreadable: it is damaged, or of a size that must not be cropped.
        """
        return decoded(read_bin(Path(self.path))[0][number], self.size)


@cache
def read_bin(path: Path) -> tuple[list[bytes], list[bool]]:
    """Returns the encoded images of a bin, and for each pair whether it shows one person.

    Raises:
        DataError: the file cannot be read, is cut short, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            content = _Plain(file, encoding="bytes").load()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} is no verification set: {error}") from None
    except (EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is cut short or no verification set") from None
    if not (isinstance(content, tuple | list) and len(content) == 2):
        raise DataError(f"{path} is no verification set: it must hold images and bools")
    images, same = content
    if not _all_of(images, bytes) or not _all_of(same, bool):
        raise DataError(f"{path} is no verification set: it must hold encoded images and bools")
    if not same or len(images) != 2 * len(same):
        raise DataError(f"{path} holds {len(images):,} images for {len(same):,} pairs")
    return list(images), list(same)


def _all_of(values: Any, kind: type) -> bool:
    """Returns whether `values` is a list that contains only `kind`."""
    return isinstance(values, list | tuple) and all(type(value) is kind for value in values)


class _Plain(pickle.Unpickler):
    """Unpickles bytes, lists and bools, but nothing that requires an import."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuses all names but the one by which Python 3 pickles bytes for Python 2."""
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and its code is never run")


def _latin1(text: str, encoding: Any) -> bytes:
    """Replaces `codecs.encode`, which would run any codec."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")
