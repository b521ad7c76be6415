"""`prune`: a model of one's own, in three lines of Python and without a configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunebench.budgets import Budget
from prunebench.channels import Example, in_mode, match_modes, trace
from prunebench.channels.followable import plain, require_followable
from prunebench.channels.untouched import untouched
from prunebench.criteria import Criterion
from prunebench.errors import ConfigError
from prunebench.options import option
from prunebench.repairs import Repair
from prunebench.run.step import Method, Sample, cut, dense_counts
from prunebench.schedules.oneshot import OneShot


def prune(
    model: nn.Module,
    example: Example,
    *,
    criterion: str = "l1",
    images: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    **budget: Any,
) -> nn.Module:
    """Returns a physically smaller copy of `model`, pruned in one step; `model` is untouched.

    Args:
        model: any CNN that the channel map can trace.
        example: an input [1, C, H, W], as the model expects it; where it takes several, a tuple
            or list of them, or a dict by name of the argument.
        criterion: an option of ``conf/criterion`` with its shipped settings.
        images: inputs [n, C, H, W] and labels [n] for criteria that look at data.
        seed: for criteria that draw at random.
        budget: one of ``macs=0.5``, ``params=0.5`` (fraction of the dense network's to keep) or
            ``uniform=0.5`` (fraction of every group's channels). Without one of them, a criterion
            that decides by itself (foad, bn_probability) does so, and with any other half of
            every group's channels stay (``uniform=0.5``). Further keys of that budget's option
            may follow, such as ``scope="all"``, ``floor=8`` or ``divisor=8``.

    Raises:
        ConfigError: an unknown criterion or budget key, or `images` are needed and not given.
        PruningError: the criterion or the budget cannot serve this model.
    """
    ranking = option("criterion", criterion, Criterion)
    method = Method(ranking, chosen_budget(ranking, budget), option("repair", "none", Repair))
    if method.images_needed and images is None:
        raise ConfigError(
            f"criterion={criterion} looks at {method.images_needed} training images; "
            "give images=(inputs, labels)"
        )
    if images is None:
        none = example[:0] if isinstance(example, Tensor) else torch.empty(0)
        images = none, torch.empty(0, dtype=torch.int64)
    require_followable(model)
    model = plain(model)
    with in_mode(model), untouched(model):
        cmap = trace(model, example)
        names = [group.name for group in method.budget.select(cmap)]
        [step] = OneShot().steps(names)
        sample = Sample(*images, seed)
        made = cut(model, method, step, dense_counts(cmap), sample=sample, example=example)
    match_modes(made.network, model)
    return made.network


def chosen_budget(criterion: Criterion, keys: dict[str, Any]) -> Budget:
    """Returns the budget that the arguments of `prune` ask for.

    Raises:
        ConfigError: they ask for more than one, or a key or value does not fit.
    """
    asked = [name for name in ("macs", "params", "uniform") if name in keys]
    if len(asked) > 1:
        raise ConfigError(f"give one budget, not {' and '.join(asked)}")
    name = asked[0] if asked else "own" if criterion.decides else "uniform"
    renamed = {("keep" if key == name else key): value for key, value in keys.items()}
    built: Budget = option("budget", name, Budget, **renamed)
    return built
