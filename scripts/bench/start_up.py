"""Compares the start of the command with bare Hydra on the same configuration.

    python scripts/bench/start_up.py [--repeats 5]

Every start is a process of its own; figures are its CPU seconds, medians of alternating starts. The
bare commands are an empty function under `hydra.main`: with all of our `conf/`, and with a single
key.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from result import Row, arguments, publish

from prunebench.options.files import conf_dir

ABOUT = """CPU seconds of the whole process, compared with an empty function under `hydra.main`:
with our `conf/`, which is the least we could reach, and with a configuration of one key. Medians
of alternating starts."""
BARE = """import hydra
@hydra.main(config_path={folder!r}, config_name="config", version_base="1.3")
def main(config): pass
main()
"""
OURS = {
    "prunebench --cfg job": ["--cfg", "job"],
    "prunebench --help": ["--help"],
    "a mistake (criterion=l7)": ["criterion=l7"],
    "prunebench --version": ["--version"],
}


def cpu_seconds(words: Sequence[str], folder: Path) -> float:
    """Returns the CPU time of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Starts all commands alternately, and compares."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "one").mkdir()
        (folder / "one" / "config.yaml").write_text("key: 1\n")
        whole, one = (folder / f"{name}.py" for name in ("bare_whole", "bare_one"))
        whole.write_text(BARE.format(folder=str(conf_dir())))
        one.write_text(BARE.format(folder=str(folder / "one")))
        starts = {name: ["-m", "prunebench", *words] for name, words in OURS.items()}
        bare = {"whole": [str(whole), "--cfg", "job"], "one": [str(one), "--cfg", "job"]}
        works = {
            name: partial(cpu_seconds, words, folder) for name, words in (bare | starts).items()
        }
        found: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(asked.repeats):
            for name, work in works.items():
                found[name].append(work())
    seconds = {name: median(times) for name, times in found.items()}
    rows: list[Row] = [
        {
            "what": name,
            "bare Hydra, one key, s": seconds["one"],
            "bare Hydra, our conf/, s": seconds["whole"],
            "prunebench, s": seconds[name],
            "times the time": seconds[name] / seconds["whole"],
        }
        for name in OURS
    ]
    publish(asked, "Starting the command", ABOUT, rows)


if __name__ == "__main__":
    main()
