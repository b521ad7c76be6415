"""Reads JSON files strictly and writes files atomically, safe even against a power cut."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunebench.errors import ConfigError, DataError


def digest(values: object) -> str:
    """Returns the sha256, in hex, of plain `values`; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True).encode()).hexdigest()


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path` atomically and durably, replacing an existing file."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; an empty one if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def remove_temporaries(folder: Path) -> None:
    """Removes files that killed calls of `write_bytes` left; nobody else may write in `folder`."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes changes of the folder's entries (a rename, a removal) durable."""
    # Without this a power cut may undo a rename; some file systems refuse it, which is harmless.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def plain(value: Any) -> Any:
    """Returns dataclasses as dicts, tuples as lists, and None for infinite and NaN values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        names.sort(key=lambda name: name != "schema")  # the version comes first in the file
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decode(hint: Any, value: Any, source: str, where: str) -> Any:
    """Returns `value` as the type `hint`; `where` is the field's dotted name, for messages.

    Raises:
        DataError: it is not of that type.
    """
    if hint is Any or type(value) is hint:
        return value
    if dataclasses.is_dataclass(hint):
        return _decode_record(hint, value, source, where)
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin is list and isinstance(value, list):
        return [decode(inner[0], item, source, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {
            key: decode(inner[1], item, source, f"{where}.{key}") for key, item in value.items()
        }
    if origin in (types.UnionType, typing.Union):
        rest = next(option for option in inner if option is not type(None))
        return None if value is None else decode(rest, value, source, where)
    if hint is float and type(value) in (int, float):
        return float(value)
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else origin.__name__
    raise DataError(f"{source}: {where} should be {wanted}, got {value!r:.60}")


def _decode_record(hint: Any, value: Any, source: str, where: str) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{source}: {where} should be an object, got {value!r:.60}")
    for problem in _mismatches(hint, value):
        raise DataError(f"{source}: {where + '.' if where else ''}{problem}")
    hints = _hints(hint)
    fields = {
        name: decode(hints[name], item, source, f"{where}.{name}" if where else name)
        for name, item in value.items()
    }
    try:
        return hint(**fields)
    except ConfigError as error:  # raised by the record's own checks of ranges
        raise DataError(f"{source}: {where + ': ' if where else ''}{error}") from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Returns the types of a dataclass's fields; cached, since this dominates reading a file."""
    return typing.get_type_hints(kind)


@functools.cache
def _needed(kind: Any) -> tuple[str, ...]:
    """Returns the fields of a dataclass that every file must have.

    Fields that default to None were added later: files written before are still valid.
    """
    return tuple(f.name for f in dataclasses.fields(kind) if f.default is not None)


def _mismatches(hint: Any, value: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in _needed(hint) if name not in value)
    yield from (f"{name} is not a known field" for name in value if name not in _hints(hint))
