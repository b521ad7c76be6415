"""InsightFace's verification sets: ``lfw.bin``, ``agedb_30.bin``, ``cfp_fp.bin`` and their like.

Each is a pickle, of Python 2 or 3, of encoded images and of one bool per pair: images 2k and 2k + 1
are pair k. A pickle may run code; what is read here may not.
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

#: equal parts that are tested in turn
FOLDS = 10
#: what InsightFace ships beside its packs
KNOWN = ("lfw", "cfp_fp", "cfp_ff", "agedb_30", "calfw", "cplfw", "vgg2_fp")


@dataclass(frozen=True)
class BinImages:
    """The images of a bin; a `Source`. Each process reads the file once.

    Attributes:
        path: of the file.
        size: (height, width) that the network sees.
    """

    path: str
    size: tuple[int, int]

    def name(self, number: int) -> str:
        """Returns file and place."""
        return f"{Path(self.path).name} image {number}"

    def read(self, number: int) -> Image:
        """Returns image `number`.

        Raises:
            Unreadable: it is damaged, or of a size that is not to be cut.
        """
        return decoded(read_bin(Path(self.path))[0][number], self.size)


@cache
def read_bin(path: Path) -> tuple[list[bytes], list[bool]]:
    """Returns the encoded images of a bin, and whether each pair of them is of one person.

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
    """Whether `values` is a list of nothing but `kind`."""
    return isinstance(values, list | tuple) and all(type(value) is kind for value in values)


class _Plain(pickle.Unpickler):
    """Reads bytes, lists and bools, and nothing that a name would have to be looked up for."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuses all names but the one that Python 3 writes bytes with for Python 2."""
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and its code is never run")


def _latin1(text: str, encoding: Any) -> bytes:
    """Stands in for `codecs.encode`, which would take any codec."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")
