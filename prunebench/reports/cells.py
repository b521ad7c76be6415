"""Formats single figures for people."""

from __future__ import annotations

from prunebench.reports.figures import Change, Spread


def points(value: Spread | None) -> str:
    """Returns a percentage or difference in points with two decimals: ``93.81 ± 0.12``."""
    return _with_std(value, 2)


def percent(reduction: Spread | None) -> str:
    """Returns a reduction in percent as a signed change: ``-87.1 ± 0.3 %``."""
    if reduction is None:
        return ""
    text = _with_std(Spread(-reduction.mean, reduction.std), 1)
    return ("+" if not text.startswith("-") and float(text.split()[0]) else "") + text + " %"


def amount(value: Spread | None, unit: str = "") -> str:
    """Returns a count with four digits and a prefix: ``14.72 M``."""
    if value is None:
        return ""
    shown = float(f"{value.mean:.4g}")  # 999,950 is 1 M, not 1000 k
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if shown >= size:
            return f"{shown / size:.4g} {prefix}{unit}"
    return f"{shown:.4g} {unit}".rstrip()


def cost(value: Change | None) -> str:
    """Returns before, after and reduction, as far as known: ``14.72 M → 1.9 M (-87.1 %)``."""
    if value is None:
        return ""
    counts, change = ends(value), percent(value.reduction)
    return f"{counts} ({change})" if counts and change else counts or change


def ends(value: Change | None) -> str:
    """Returns before and after alone: ``14.72 M → 1.9 M``, or after alone."""
    if value is None or not (value.before or value.after):
        return ""
    after = amount(value.after) or "?"
    return f"{amount(value.before)} → {after}" if value.before else after


def times(value: Change | None) -> str:
    """Returns milliseconds before and after with the speed-up: ``3.2 → 1.6 (2.00x)``."""
    if value is None:
        return ""
    return f"{plain(value.before)} → {plain(value.after)} ({speed_up(value)})"


def speed_up(value: Change) -> str:
    """Returns the factor of the speed-up: ``2.00x``."""
    if value.before is None or value.after is None or not value.after.mean:
        return ""
    return f"{value.before.mean / value.after.mean:.2f}x"


def step(base: Spread | None, value: Spread) -> str:
    """Returns the signed difference from `base` to `value` in points: ``-0.25``."""
    return "" if base is None else f"{round(value.mean - base.mean, 2) + 0.0:+.2f}"


def plain(value: Spread | None) -> str:
    """Returns the mean with four digits, without the spread."""
    return "" if value is None else f"{value.mean:.4g}"


def channels(value: Spread) -> str:
    """Returns a number of channels, an integer for a single run."""
    return f"{value.mean:.0f}" if value.std is None else _with_std(value, 1)


def _with_std(value: Spread | None, digits: int) -> str:
    if value is None:
        return ""
    text = f"{round(value.mean, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"
    return text if value.std is None else f"{text} ± {value.std:.{digits}f}"
