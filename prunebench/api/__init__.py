"""`prune`, `save` and `load`: a model of one's own, in Python and without a configuration.

What `prune` returns is the slim network itself, a module of the class it had, with two attributes:
`plan` and `report`. A wrapper would have to be taken off again before the next line of the user's
code, which builds an optimizer from it, trains, exports or wraps it in turn; a tuple would break
every line that was written when there was nothing but the network. Deep copies keep both.
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
from prunebench.options import option as option  # criteria and the like by the names of the command
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
    """Returns a physically smaller copy of `model`, with `plan` and `report`; `model` stays.

    Args:
        model: any network that can be traced; of a compiled one, what it was made from.
        example: an input [N, C, ...], or several as tuple, list or dict by argument.
        criterion: a name or an object, such as ``prunebench.criteria.Taylor(form="weight")``.
        budget: a name or an object; without one as `keys` say, as the criterion decides, or half.
        repair: a name or an object.
        scope: ``inner`` leaves residual streams whole, ``all`` does not.
        only: name patterns of the groups to prune; all others stay whole.
        exclude: name patterns of groups to leave whole.
        steps: rounds of ranking and cutting, each on what the last one left.
        between: is given the network after each round but the last, to train it in place.
        images: a tensor, (inputs, targets), or an iterable of such batches.
        loss: of outputs and targets, the mean; else the cross-entropy.
        forward: of network and inputs; else the network is called with them.
        optimizer: one, or several, to go on with the slim network; groups and state are cut.
        seed: for criteria that draw at random.
        keys: of the budget: ``macs=0.5``, ``params=0.5``, ``uniform=0.5``, ``floor=8``, ...
    """
    with in_python(criterion, repair, keys), inference_mode(False):  # what is made can be trained
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
