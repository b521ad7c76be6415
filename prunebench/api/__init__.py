"""The Python API, `prune`, `save` and `load`, for models of one's own without a configuration.

`prune` returns the slim network itself, a module of the same class as the model, with two more
attributes: `plan` and `report`. A wrapper would have to be removed before the network is trained,
exported or wrapped in turn; a tuple would break code that expects a network. Deep copies keep both
attributes. `choices` interprets the arguments, `steps` does the cuts, `result` is what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from torch import Tensor, inference_mode, nn

from prunebench.api.choices import chosen, counted, limited, scorable
from prunebench.api.images import followable, sample_of
from prunebench.api.optimizer import Follower, Optimizers
from prunebench.api.result import Slim, attach, require_room
from prunebench.api.steps import Steps, cut_in_steps
from prunebench.api.wording import in_python
from prunebench.budgets import Budget
from prunebench.channels import Example, in_mode, trace
from prunebench.channels.untouched import untouched
from prunebench.contracts import Task
from prunebench.criteria import Criterion
from prunebench.options import option as option  # builds options by the command line's names
from prunebench.repairs import Repair


def prune(  # noqa: PLR0913 - what a method is made of, each by its name
    model: nn.Module,
    example: Example,
    *,
    criterion: str | Criterion = "l1",
    budget: str | Budget | None = None,
    repair: str | Repair = "none",
    scope: str | None = None,
    only: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    steps: int = 1,
    between: Callable[[Any], object] | None = None,
    images: Any = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    optimizer: Optimizers = None,
    seed: int = 0,
    **keys: Any,
) -> Slim:
    """Returns a smaller copy of `model`, with attributes `plan` and `report`; `model` is unchanged.

    Args:
        model: any network that can be traced; of a compiled one, the original module is pruned.
        example: an input [N, C, ...]; or several, as tuple, list or dict by argument name.
        criterion: a name or an object, such as ``prunebench.criteria.Taylor(form="weight")``.
        budget: a name or an object; else what `keys` say, or the criterion decides, or half.
        repair: a name or an object.
        scope: ``inner`` leaves residual streams whole, ``all`` prunes them, too.
        only: name patterns of the groups to prune; all others stay whole.
        exclude: name patterns of groups to leave whole.
        steps: rounds of ranking and cutting, each on the result of the last.
        between: called with the network after each round but the last, to train it in place.
        images: a tensor, (inputs, targets), or an iterable of such batches.
        loss: mean loss of (outputs, targets); cross-entropy by default.
        forward: called with (network, inputs) in place of the network itself.
        optimizer: of `model`, or several; continues with the slim network, its state cut.
        seed: for criteria that draw at random.
        keys: of the budget: ``macs=0.5``, ``params=0.5``, ``uniform=0.5``, ``floor=8``, ...
    """
    with in_python(criterion, repair, keys), inference_mode(False):  # so the result can be trained
        method = chosen(criterion, budget, repair, keys, signature(prune).parameters)
        network = followable(model)
        require_room(network)
        rounds = Steps(counted("steps", steps, 1), between, Follower(optimizer, network))
        with in_mode(network), untouched(network):
            cmap = trace(network, example)
            method = scorable(limited(method, cmap, scope, only, exclude), network, cmap, example)
            sample = sample_of(images, method, Task(forward, loss), network, seed)
        cuts = cut_in_steps(network, cmap, example, method, rounds, sample)
        return attach(network, cuts, cmap, method, sample, example)
