"""Turns the arguments of `prune` into the options that the command line has, too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import escape
from typing import Any, TypeVar

import numpy as np
from torch import nn

from prunebench.budgets import Budget
from prunebench.channels import ChannelMap, Example
from prunebench.criteria import Criterion
from prunebench.errors import ConfigError, nearest, require
from prunebench.options import option
from prunebench.options.files import conf_dir, option_names, read_option
from prunebench.options.patterns import require_matches
from prunebench.repairs import Repair
from prunebench.run.scored import scored_only
from prunebench.run.step import Method
from prunebench.run.timing import timed

#: budgets that can be given as a keyword with a number, such as macs=0.5, instead of ``keep``
SHORT = ("macs", "params", "uniform")
PLURALS = {"criterion": "criteria", "budget": "budgets", "repair": "repairs"}

Part = TypeVar("Part")


def chosen(
    criterion: str | Criterion,
    budget: object,
    repair: str | Repair,
    keys: Mapping[str, Any],
    arguments: Iterable[str],
) -> Method:
    """Returns the method that the arguments of `prune` describe.

    Raises:
        ConfigError: an option or key is unknown, or a value does not fit.
    """
    budget, keys = own_numbers(budget), own_numbers(keys)
    ranking = chosen_criterion(criterion)
    made = _chosen("repair", repair, Repair)
    return Method(ranking, chosen_budget(ranking, budget, keys, arguments), made)


def chosen_criterion(asked: str | Criterion) -> Criterion:
    """Returns the criterion `asked` for.

    Raises:
        ConfigError: it does not exist, or it prunes while a network is trained.
    """
    found = _chosen("criterion", asked, Criterion)
    if found.watches:
        name = asked if isinstance(asked, str) else type(found).__name__
        raise ConfigError(
            f"criterion '{name}' prunes during training, which only the command prunebench does; "
            f"criteria: {', '.join(known('criterion'))}"
        )
    return found


def chosen_budget(
    criterion: Criterion, asked: object, keys: Mapping[str, Any], arguments: Iterable[str]
) -> Budget:
    """Returns the budget that the arguments of `prune` describe.

    Args:
        criterion: decides by itself if nothing else is asked for and it can.
        asked: a name, an object or None.
        keys: of the budget's option, or the short forms.
        arguments: names of the other arguments of `prune`, for messages.

    Raises:
        ConfigError: they describe more than one budget, or a key or value does not fit.
    """
    if isinstance(asked, (int, float)):
        raise ConfigError(
            f"budget={asked} does not say what it limits; write macs={asked}, params={asked} (of "
            "the whole "
            f"network's) or uniform={asked} (of each group's channels)"
        )
    if not isinstance(asked, str | None):
        require(
            not keys, f"a budget object has its own fields; set {', '.join(keys)} on the object"
        )
        return _chosen("budget", asked, Budget)
    short = [name for name in SHORT if name in keys and asked in (None, name)]
    require(
        len(short) < 2,
        f"give one budget, not {' and '.join(short)}; "
        'budget="macs_params", macs=0.5, params=0.5 is one for both',
    )
    require(not short or "keep" not in keys, f"{''.join(short)}= and keep= say the same; give one")
    name = asked or (short[0] if short else "own" if criterion.decides else "uniform")
    if name not in known("budget"):
        raise ConfigError(_unknown("budget", name))
    renamed = {("keep" if [key] == short else key): value for key, value in keys.items()}
    valid = sorted(read_option(conf_dir() / "budget" / f"{name}.yaml").keys() - {"_target_"})
    for key in renamed.keys() - set(valid):
        if key in SHORT:
            raise ConfigError(f'{key}= is another budget beside budget="{name}"; give one')
        words = {*arguments, *valid, *SHORT} - {"keys"}
        hint = f"; did you mean '{near}'?" if (near := nearest(key, sorted(words))) else ""
        raise ConfigError(
            f"'{key}' is not known; budget {name} has {', '.join(valid)}, and prune() "
            f"{', '.join(word for word in arguments if word != 'keys')}{hint}"
        )
    built: Budget = option("budget", name, Budget, **renamed)
    return built


def own_numbers(value: Any) -> Any:
    """Returns `value` with NumPy's numbers converted to Python's."""
    if isinstance(value, dict):
        return {name: own_numbers(each) for name, each in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def counted(name: str, value: object, least: int) -> int:
    """Returns the argument `name` as an integer of at least `least`.

    Raises:
        ConfigError: it is something else.
    """
    count = own_numbers(value)
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise ConfigError(f"{name} must be {least}, {least + 1}, {least + 2} ...; got {value!r}")
    return count


def called(**given: Callable[..., Any] | None) -> None:
    """Checks that the given arguments can be called.

    Raises:
        ConfigError: one of them cannot.
    """
    for name, function in given.items():
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function; got {function!r}")


def spoken(made: object) -> str:
    """Returns the name of an option's object, as the command line and `prune` spell it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(made).__name__).lower()


def known(group: str) -> list[str]:
    """Returns the names of a group's options that `prune` accepts."""
    names = option_names(group, [conf_dir()])
    if group != "criterion":
        return names
    return [name for name in names if not option(group, name, Criterion).watches]


def _unknown(group: str, name: str) -> str:
    """Returns a message that this option does not exist, and which do."""
    names = known(group)
    hint = f"; did you mean '{near}'?" if (near := nearest(name, names)) else ""
    return f"{group} '{name}' is not known; {PLURALS[group]}: {', '.join(names)}{hint}"


def _chosen(group: str, asked: object, base: type[Part]) -> Part:
    """Returns the option for a name or an object.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(asked, str):
        if asked not in option_names(group, [conf_dir()]):
            raise ConfigError(_unknown(group, asked))
        built: Part = option(group, asked, base)
        return built
    if isinstance(asked, type) and issubclass(asked, base):
        raise ConfigError(f"{group} must be an object, not a class: {asked.__name__}()")
    if not isinstance(asked, base):
        raise ConfigError(
            f"{group} must be a {base.__name__} or a name ({', '.join(known(group))}); got "
            f"{str(asked)[:60]!r}"
        )
    return asked


def listed(name: str, patterns: str | Sequence[str]) -> list[str]:
    """Returns the patterns of the argument `name` as a list; a string is one pattern.

    Raises:
        ConfigError: they are not strings.
    """
    found = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(found, Iterable) or not all(isinstance(each, str) for each in (*found,)):
        raise ConfigError(f"{name} must be a name pattern, or a list of them; got {patterns!r}")
    return list(found)


def limited(
    method: Method,
    cmap: ChannelMap,
    scope: str | None,
    only: str | Sequence[str],
    exclude: str | Sequence[str],
) -> Method:
    """Returns `method` with a budget that leaves out the groups not to be pruned.

    Raises:
        PruningError: a pattern of `only` matches no group.
        ConfigError: the scope does not exist, or a pattern is not a string.
    """
    budget, wanted = method.budget, listed("only", only)
    names = [group.name for group in cmap.groups]
    require_matches("only", wanted, names)
    others = [
        escape(name)
        for name in names
        if wanted and not any(fnmatchcase(name, pattern) for pattern in wanted)
    ]
    return replace(
        method,
        budget=replace(
            budget,
            scope=budget.scope if scope is None else scope,
            exclude=[*budget.exclude, *listed("exclude", exclude), *others],
        ),
    )


def scorable(method: Method, network: nn.Module, cmap: ChannelMap, example: Example) -> Method:
    """Returns `method` with a budget that leaves out the groups its criterion cannot score.

    For a budget of time, the layers are timed here.

    Raises:
        PruningError: the criterion scores no group, or the time cannot be reached.
    """
    budget, _ = scored_only(method.criterion, method.budget, network, cmap)
    budget = timed(budget, network, cmap, example, None, lambda _: None)
    return replace(method, budget=budget)
