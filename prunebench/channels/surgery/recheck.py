"""Rechecks a slimmed network: is every channel where the dense one has it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.channels.example import run_on
from prunebench.channels.labels.forward import following, freeze_outputs, labelled_input
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.steps import Entered, Step, Worn
from prunebench.channels.labels.tape import Tape
from prunebench.channels.labels.tensors import labels_of, row_of
from prunebench.channels.labels.values import packed
from prunebench.channels.map import ChannelMap, Kept, as_array
from prunebench.channels.tensors import tensors_in
from prunebench.errors import PruningError, first_line

#: mends a module whose forward fails, in its call, and returns its result
Mend: TypeAlias = Callable[[Labeller, nn.Module, Entered, Exception], Any]


class MisplacedError(Exception):
    """A channel of the slimmed network is not where the dense one has it.

    Attributes:
        met: the labels of the tensors that met there, in either network.
    """

    def __init__(self, why: str, met: Iterable[Worn] = ()) -> None:
        """Stores the message and the labels that met."""
        super().__init__(why)
        self.met = [one.labels for one in met]


class StuckError(PruningError):
    """Channels are moved in a way that cannot follow a cut.

    Attributes:
        where, why: the module or function, and what went wrong there.
        groups: names of the groups that would have to stay whole.
    """

    def __init__(self, where: str, why: str, groups: Iterable[str]) -> None:
        """Makes a message that also names the groups to leave whole."""
        self.where, self.why = where, why
        self.groups = sorted(set(groups))
        super().__init__(
            f"{where} does not follow the cut: {why}; "
            f"leave these groups whole (budget.exclude): {', '.join(self.groups) or 'unknown'}"
        )

    def because(self, reason: str) -> StuckError:
        """Returns the same error with a further reason."""
        return StuckError(self.where, f"{self.why}; {reason}", self.groups)


class Recheck:
    """The forward of a slimmed network, checked against the tape of the dense one.

    It hands out the ids of the dense forward in their order, without cut channels. So the inputs of
    every function that computes can be compared in both networks, element by element.

    Attributes:
        cmap, kept: channel map of the dense network, and which of its classes are left.
        made, at: how many of the dense forward's label vectors and steps are behind us.
        mender: what mends modules whose forward fails, if anything does.
        mended: name of a module -> what mends it.
    """

    def __init__(self, cmap: ChannelMap, kept: Kept) -> None:
        """Begins at the start of the tape."""
        self.cmap, self.kept = cmap, kept
        self.made = self.at = 0
        self.mender: Mend | None = None
        self.mended: dict[str, Any] = {}
        self._stays: Kept = kept[cmap.class_of]
        self._left: dict[int, tuple[Tensor, Tensor]] = {}

    def left(self, of: Tensor) -> Tensor:
        """Returns the ids in `of`, of the dense forward, whose class is kept, flattened.

        Cached, since many weights and steps share one tensor of ids.
        """
        known = self._left.get(id(of))
        if known is None:
            ids = as_array(of)
            known = of, torch.from_numpy(ids[self._stays[ids]])  # keeps `of` alive, hence its id
            self._left[id(of)] = known
        return known[1]

    def groups(self, rows: Iterable[Tensor]) -> set[str]:
        """Returns the names of the groups that labels in `rows` belong to."""
        found: set[str] = set()
        for labels in rows:
            numbers = self.cmap.locate[0, self.cmap.classes(labels >> 1)]
            found.update(self.cmap.groups[n].name for n in np.unique(numbers) if n >= 0)
        return found

    def stays(self, was: Worn) -> Tensor:
        """Returns which labels of a tensor of the dense network are left, bool in their shape."""
        return torch.from_numpy(np.asarray(self._stays[(was.labels >> 1).numpy()]))

    def want(self, was: Worn) -> Tensor:
        """Returns which elements are left of a tensor of the dense network, flattened."""
        both = packed(was.labels >> 1, was.values)
        return both[self.stays(was).expand(both.shape)]

    def agrees(self, was: Worn, now: Worn) -> bool:
        """Whether tensor `now` holds what is left of `was` in the dense network, in its order."""
        if was.parameter or now.parameter:
            return was.parameter == now.parameter
        if len(was.shape) != len(now.shape):
            return False
        labels = sizes = tuple(was.labels.shape)
        if isinstance(was.values, Tensor):
            sizes = tuple(b if a == 1 else a for a, b in zip(sizes, was.values.shape, strict=True))
        old, new = was.shape, now.shape
        if any([a != b for one, a, b in zip(labels, old, new, strict=True) if one == 1]):
            return False
        sizes = tuple([b if size != 1 else 1 for size, b in zip(sizes, new, strict=True)])
        numbers = isinstance(was.values, int) and isinstance(now.values, int)
        alike = numbers and was.values == now.values
        both = now.labels if alike else packed(now.labels >> 1, now.values)
        if any(size not in (1, new) for size, new in zip(both.shape, sizes, strict=True)):
            return False
        if was.constant is not None and now.constant is not None and was.shape == now.shape:
            return torch.equal(was.constant, now.constant)
        if not alike:
            return torch.equal(self.want(was), both.expand(sizes).reshape(-1))
        want, have = self.left(row_of(was.labels).ids), row_of(now.labels).ids
        if want is have and both.shape == sizes:
            return True
        return torch.equal(want, have.view(both.shape).expand(sizes).reshape(-1))

    def stuck(self, where: str, error: Exception, given: Any = ()) -> StuckError:
        """Returns the error to report for `error` at `where`.

        It names the groups that `error` tells, or else those whose channels `given` holds.
        """
        if isinstance(error, StuckError):
            return error
        touched = self.groups(error.met if isinstance(error, MisplacedError) else ())
        touched = touched or self.groups(map(labels_of, tensors_in(given)))
        return StuckError(where or "the forward of the network", first_line(error), touched)

    def step(self, step: Step) -> None:
        """Raises MisplacedError unless a function is given what is left of its dense inputs."""
        if self.at >= len(self.cmap.tape.steps):
            raise MisplacedError("more is computed than in the dense network", step.given)
        was = self.cmap.tape.steps[self.at]
        self.at, self.made = self.at + 1, was.made
        met = [*was.given, *step.given]
        if step.function != was.function or len(step.given) != len(was.given):
            raise MisplacedError(
                f"{step.function} runs where {was.function} did before the cut", met
            )
        if not was.matters():
            return
        if step.numbers != was.numbers:
            raise MisplacedError(
                f"{step.function} is given a number that depends on how many channels there are",
                met,
            )
        for old, new in zip(was.given, step.given, strict=True):
            if not self.agrees(old, new):
                raise MisplacedError(f"{step.function} meets other channels", met)

    def new(self, count: int) -> Tensor:
        """Returns the next labels of the dense forward that are left."""
        if self.made >= len(self.cmap.tape.made):
            raise MisplacedError("more tensors are made than in the dense network")
        ids = self.left(self.cmap.tape.made[self.made])
        self.made += 1
        if ids.numel() != count:
            raise MisplacedError(f"{count} channels are made where {ids.numel()} are left")
        return ids

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Does nothing: `step` has compared what meets here."""

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Checks that a weight meets the channels it was cut for."""
        want = self.cmap.tape.reads.get((name, dim))
        if want is None or self.left(want).numel() != ids.numel():
            raise MisplacedError(f"{name} meets other channels")

    def elsewhere(self, dim: int, *, found: bool) -> bool:
        """Returns whether they did at this step of the dense network."""
        return (self.at, dim) in self.cmap.tape.bare

    def frees(self, name: str, t: Tensor) -> bool:
        """Returns whether the elements of parameter `name` were labelled in the dense network."""
        return name in self.cmap.tape.free

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Does nothing: what is frozen was found in the dense network."""

    def enter(self, call: Entered) -> None:
        """Raises at a further call of a mended module, so that this call is mended as well."""
        if call.name in self.mended:
            raise MisplacedError("it is called again")

    def leave(self, call: Entered, result: list[Worn]) -> None:
        """Checks the result of a module that moves channels by numbers of its own."""
        was = self.cmap.tape.returned.get((call.name, call.nth), result)
        if len(was) != len(result) or not all(map(self.agrees, was, result)):
            raise MisplacedError("it moves channels by fixed indices", [*was, *result])

    def mend(self, labeller: Labeller, module: nn.Module, call: Entered, error: Exception) -> Any:
        """Lets the mender, if there is one, mend a module whose forward fails."""
        if self.mender is None or call.name not in self.cmap.tape.movers:
            raise error
        return self.mender(labeller, module, call, error)


def replay(slimmed: nn.Module, recheck: Recheck) -> StuckError | None:
    """Runs `slimmed` against the tape; returns what is misplaced, or None if nothing is."""
    tape = recheck.cmap.tape
    labeller = Labeller(slimmed, Tape(movers=set(tape.movers)), RULES, recheck)
    image = labelled_input(labeller, tape.example)
    try:
        with following(labeller, slimmed):
            result = run_on(slimmed, image)
        freeze_outputs(labeller, result)
    except Exception as error:  # noqa: BLE001  (the code of a network may raise anything)
        return recheck.stuck(labeller.stuck, error, labeller.stuck_args)
    return None
