"""Decodes images with Pillow, and raises one error for everything wrong with a file."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from prunebench.datasets.stream import Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

#: exceptions that Pillow's decoders raise on damaged files
_DAMAGED = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError),
    *(struct.error, zlib.error),
)


def rgb(file: str | BytesIO, root: str = "") -> Image:
    """Returns an image as Pillow's ``convert("RGB")`` gives it.

    Args:
        file: a path, or a file's content.
        root: a folder to leave out of the error's reason.

    Raises:
        Unreadable: it is damaged or missing.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).replace(f"{root}{os.sep}", "").split())
        if isinstance(file, BytesIO) and reason.startswith("cannot identify"):
            reason = "it is no image"
        raise Unreadable(reason or type(error).__name__) from None
