"""Cuts once or in several rounds, with the user's training between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from prunebench.api.choices import called, spoken
from prunebench.api.optimizer import Follower
from prunebench.channels import ChannelMap, Example, in_mode, match_modes, trace
from prunebench.channels.untouched import untouched
from prunebench.config.combinations import check_combination
from prunebench.errors import ConfigError, require
from prunebench.run.step import Cut, Method, Sample, cut, dense_counts, evidence
from prunebench.schedules import Schedule
from prunebench.schedules.iterative import Iterative
from prunebench.schedules.oneshot import OneShot


@dataclass(frozen=True)
class Steps:
    """Says how many rounds there are, and what happens between them.

    Attributes:
        count: number of rounds.
        between: trains the network after each round but the last, in place.
        follower: updates the user's optimizer after each cut.
    """

    count: int
    between: Callable[[Any], object] | None
    follower: Follower

    def __post_init__(self) -> None:
        """Raises ConfigError if `between` is no function, or if there is only one step."""
        called(between=self.between)
        require(
            self.between is None or self.count > 1,
            "between= is called between two steps; give steps=2 or more",
        )

    def schedule(self, method: Method) -> Schedule:
        """Returns the schedule of the rounds.

        Raises:
            ConfigError: criterion and budget do not go together, or not with several rounds.
        """
        if self.count == 1:
            schedule: Schedule = OneShot()
        else:
            schedule = Iterative(rounds=self.count, epochs=0)
        criterion, budget = method.criterion, method.budget
        names = {
            "criterion": spoken(criterion),
            "budget": spoken(budget),
            "schedule": "oneshot" if self.count == 1 else "iterative",
        }
        check_combination(names, criterion=criterion, budget=budget, schedule=schedule)
        return schedule


def cut_in_steps(
    model: nn.Module,
    cmap: ChannelMap,
    example: Example,
    method: Method,
    rounds: Steps,
    sample: Sample,
) -> list[Cut]:
    """Returns the cut of each round; the first cuts `model`, each later one the result of the last.

    Args:
        model: the network.
        cmap: its channel map.
        example: to trace and verify with.
        method: criterion, budget and repair.
        rounds: how many, and what happens between them.
        sample: the images for criterion and repair.

    Raises:
        PruningError: criterion or budget cannot serve this network, or surgery went wrong; then the
            optimizer is restored.
    """
    schedule, cuts = rounds.schedule(method), list[Cut]()
    dense, network = dense_counts(cmap), model
    plan = schedule.steps([group.name for group in method.budget.select(cmap)])
    with rounds.follower:
        for number, step in enumerate(plan, start=1):
            with in_mode(network), untouched(network):
                own_map = cmap if network is model else trace(network, example)
                facts = evidence(network, own_map, step, sample)
                made = cut(facts, method, step, dense, example=example)
                sample = replace(sample, earlier=made.scores)
            rounds.follower.follow(network, made, own_map)  # `untouched` would undo it
            cuts.append(made)
            network = made.network
            match_modes(network, model)
            if rounds.between is not None and number < len(plan):
                _train(rounds.between, network)
    match_modes(network, model)
    return cuts


def _train(between: Callable[[Any], object], network: nn.Module) -> None:
    """Calls the user's function to train `network` in place.

    Raises:
        ConfigError: it returns another network, which would be ignored.
    """
    returned = between(network)
    if isinstance(returned, nn.Module) and returned is not network:
        raise ConfigError("between= returned another network; train the given one in place")
