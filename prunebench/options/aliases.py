"""Refuses YAML whose aliases unfold too far, before Hydra or OmegaConf unfolds them."""

from __future__ import annotations

from pathlib import Path

import yaml

from prunebench.errors import ConfigError

#: limits of an option's YAML: characters; keys and values, with those that aliases repeat; depth
MOST_CHARACTERS, MOST_NODES, DEEPEST = 1_000_000, 10_000, 50


def require_short(path: Path, text: str) -> None:
    """Raises ConfigError if the YAML `text` of `path` unfolds to more than any option holds.

    Text that is no YAML passes, for the reader to complain about.
    """
    try:
        unfolds = len(text) > MOST_CHARACTERS or _unfolds(text)
    except yaml.YAMLError as error:
        # newer releases of LibYAML stop at a depth of their own, which Python's reader does not
        unfolds = getattr(error, "problem", None) == "exceeded maximum nesting depth"
    if unfolds:
        raise ConfigError(
            f"{path} expands to more than {MOST_NODES:,} keys and values, deeper than {DEEPEST} "
            f"levels, or has over {MOST_CHARACTERS:,} characters; it was not read"
        )


def _unfolds(text: str) -> bool:
    """Whether `text` unfolds to more than `MOST_NODES` nodes, or deeper than `DEEPEST`."""
    sizes: dict[str | None, int] = {}  # anchor -> number of nodes that an alias of it repeats
    under_way: list[tuple[str | None, int]] = []  # open collections: anchor, and nodes before it
    total = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            within_itself = any(anchor == event.anchor for anchor, _ in under_way)
            total += MOST_NODES if within_itself else sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            under_way.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = under_way.pop()
            sizes[anchor] = total - before
        if isinstance(event, yaml.NodeEvent):
            total += 1
        if total > MOST_NODES or len(under_way) > DEEPEST:
            return True
    return False
