"""Defines what all plots share: size, style, colours safe for the colour-blind, legends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: width of one column, in inches
WIDTH = 3.3
SUFFIXES = (".svg", ".pdf", ".png")
#: Okabe and Ito's colours, which people with red-green blindness can tell apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f")
MARKERS = "osD^vPX*"
#: colour of everything but the runs
GREY = "#777777"
#: characters of the longest name in a legend, and of all its columns together
NAME, LINE = 40, 46
#: height of a legend's line, in inches
LINE_HEIGHT = 0.125
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "prunebench",  # equal pictures give equal files
}


def check_plotting(path: Path) -> None:
    """Checks that matplotlib is installed and that the file's suffix is a picture's.

    Raises:
        ConfigError: one of the two does not hold.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"-o {path}: a plot is one of {', '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise ConfigError("plots need a package: pip install 'prunebench[plot]'")


@contextmanager
def style() -> Iterator[None]:
    """Applies the style of all plots inside the block."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def sheet(heights: list[float]) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels below each other, of these heights in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    return figure, list(grid[:, 0])


def save(figure: Figure, path: Path) -> None:
    """Writes `figure` without a date, so that equal pictures give equal files.

    Raises:
        DataError: the file cannot be written.
    """
    dateless = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix)
    try:
        figure.savefig(path, dpi=300, metadata={dateless: None} if dateless else None)
    except OSError as error:
        raise DataError(f"-o {path} cannot be written ({error.strerror})") from None


def look(number: int) -> dict[str, Any]:
    """Returns colour and marker of series `number`; the first 64 all look different."""
    count = len(COLOURS)
    return {
        "color": COLOURS[number % count],
        "marker": MARKERS[(number + number // count) % len(MARKERS)],
    }


def shortened(name: str) -> str:
    """Returns a name cut to the length of a legend, escaped so that ``$`` starts no formula."""
    cut = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
    return cut.replace("$", r"\$").lstrip("_")


def told_apart(names: Sequence[str]) -> tuple[list[str], str]:
    """Returns the parts of each name that set it apart, and the parts that all names share.

    The parts of a name are separated by commas. Names are shortened to fit a legend.
    """
    parts = [name.replace(" [", ", [").replace(" (", ", (").split(", ") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    if len({*names}) < 2:
        shared = []
    own = [", ".join(part for part in some if part not in shared) for some in parts]
    joined = [name.replace(", [", " [").replace(", (", " (") for name in own]
    return [shortened(name or "as above") for name in joined], ", ".join(shared)


def title(axes: Axes, *lines: str) -> None:
    """Writes the non-empty ones of `lines` above a panel."""
    axes.set_title("\n".join(filter(None, lines)).replace("$", r"\$"))


def legend(axes: Axes) -> None:
    """Puts the legend below the axis, where it hides nothing; the figure grows by its height."""
    from matplotlib.figure import SubFigure
    from matplotlib.transforms import ScaledTranslation

    handles, names = axes.get_legend_handles_labels()
    longest = max(map(len, names), default=0)
    columns = next((n for n in (3, 2) if longest * n <= LINE), 1)
    lines = -(-len(names) // columns)
    figure = axes.figure
    assert not isinstance(figure, SubFigure)
    figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * lines)
    axes.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.42, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -26 / 72, figure.dpi_scale_trans),
        ncols=min(columns, max(len(names), 1)),
        borderaxespad=0.3,
        handletextpad=0.4,
        columnspacing=1.0,
        labelspacing=0.3,
    )
