"""Writes docs/benchmarks.md from outputs/reference/benchmarks; ``--check`` only compares."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from result import markdown

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
FOUND = ROOT / "outputs" / "reference" / "benchmarks"
HEAD = """# Benchmarks

How fast prunebench is, compared with what you would use or write otherwise: the authors'
published code, other tools, or plain PyTorch. Each ratio compares two figures from the same run
on the same machine. Compare ratios, not seconds, between tables and machines.

Below each table stand its command, machine and commit. `--out FILE` writes the figures as JSON.
This page is made from [committed figures](../outputs/reference/benchmarks) by
`scripts/bench/page.py`.

- While the tables of commits 913a190 and b9f74ca were made, the machine also did other work.
- GPU tables are from one run each, because the GPU was available for minutes only. The training
  table of ResNet-56 comes from an earlier version of its script.
- A whole run on a GPU: [FOAD of VGG-16](../outputs/reference/foad_vgg16_full/table.md).
"""

#: heading -> the tables below it, by file
TOPICS = {
    "Training": [
        "training_step",
        "training_step_h200_vgg16",
        "training_step_h200_resnet20",
        "training_step_h200_resnet56",
        "recorded_step_h200_vgg16",
        "shared_gpu_h200",
        "shared_gpu_h200_mps",
        "allocator",
    ],
    "Pruning during training": [
        "pruning_during_training",
        "pruning_during_training_h200",
        "aofp_half_batch",
    ],
    "Channels and surgery": ["surgery", "latency"],
    "Criteria": ["foad_selection", "thinet_search", "oracle", "criteria", "memory"],
    "Loading images": ["cifar_loader", "loader"],
    "The command": ["start_up", "resume", "reports"],
}


def section(told: dict[str, Any]) -> str:
    """Returns a table with what it shows, and where it comes from."""
    of = told["environment"]
    words = "thread" if of["threads"] == 1 else "threads"
    changed = " with changes" if of["dirty"] else ""
    place = f"{of['device']}, {of['threads']} {words}, torch {of['torch']}, Python {of['python']}"
    source = f"`{told['command']}`; {place}; commit {of['commit'][:7]}{changed}."
    return f"\n### {told['title']}\n\n{told['about']}\n\n{markdown(told['rows'])}\n\n{source}\n"


def main() -> int:
    """Writes the page; with ``--check``, returns 1 if it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    found = {path.stem: json.loads(path.read_text()) for path in FOUND.glob("*.json")}
    if homeless := found.keys() ^ {name for names in TOPICS.values() for name in names}:
        parser.error(f"TOPICS and the committed files differ in {', '.join(sorted(homeless))}")
    text = HEAD
    for topic, names in TOPICS.items():
        text += f"\n## {topic}\n" + "".join(section(found[name]) for name in names)
    if check:
        return int(not PAGE.is_file() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
