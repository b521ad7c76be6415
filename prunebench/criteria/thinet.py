"""ThiNet: channels go whose loss changes the next layer's output least; higher = keep.

Luo et al., "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", ICCV 2017
(search ``remove``), and "ThiNet: Pruning CNN Filters for a Thinner Net", TPAMI 2019 (search
``omp``). Channel c adds x_c to the next layer's output before its bias, y = sum_c x_c. Keeping the
set S costs the squared error of sum_{c in S} x_c against y. Sets are grown greedily on the Gram
matrix G = X'X, which is exact and takes a time independent of the number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunebench.analysis.gram import GramCollection, Matrix
from prunebench.analysis.gram import rescale as rescale
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require_choice

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.channels import ChannelGroup

SEARCHES = ("remove", "keep", "omp", "ols")
#: part of its energy that an independent channel has outside the span of the kept ones, at least
INDEPENDENT = 1e-10


@dataclass(frozen=True, kw_only=True)
class Thinet(GramCollection, Criterion):
    """Scores a channel by the next layer's error once it and all removed before it are gone.

    The score is f(T) / |y|^2, where T are the channels removed up to and including this one, made
    to rise strictly along the order of removal. So budgets that compare layers cut where the next
    layer loses the smallest part of its output.

    Attributes:
        search: ``remove`` grows the removed set by the channel that adds least error (ICCV 2017);
            ``keep`` grows the kept set by the channel that leaves least error; ``omp`` does so and
            refits all coefficients in every step (TPAMI 2019); ``ols`` (ours) picks by the error
            after that fit rather than before.
        balance: whether the Gram matrix of each consumer is divided by its energy |y|^2 before
            those of several consumers are added up; else every sample counts alike.
    """

    search: str = "remove"
    balance: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        GramCollection.__post_init__(self)
        require_choice("search", self.search, SEARCHES)

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by the order of removal, after one pass over the images.

        Raises:
            PruningError: a consumer cannot be measured, or no layer reads a group.
        """
        import torch

        collected = self.grams(evidence, evidence.groups)
        ranks = {}
        for group in evidence.groups:
            gram = self._added(group, list(collected[group.name].values()))
            order, errors = search_path(gram, search=self.search)
            scores = np.empty(group.size)
            scores[order] = _rising(errors / (gram.sum() or 1.0))
            ranks[group.name] = GroupRank(torch.from_numpy(scores))
        return ranks

    def _added(self, group: ChannelGroup, grams: Sequence[Tensor]) -> Matrix:
        """Returns the sum of the consumers' Gram matrices, that of all their samples."""
        if not grams:
            raise PruningError(
                f"no convolution or linear layer reads the channels of {group.name}, so ThiNet "
                f"cannot judge them; leave it alone with budget.exclude=[{group.name}]"
            )
        tables: list[Matrix] = [gram.numpy() for gram in grams]
        if self.balance:
            tables = [table / (table.sum() or 1.0) for table in tables]
        added: Matrix = np.sum(tables, axis=0)
        return added


def removal_order(gram: Tensor | Matrix, *, search: str) -> list[int]:
    """Returns all C channels in the order of removal.

    For searches that grow the kept set this is the reverse order of keeping. To keep k channels,
    keep the last k. Of equal channels the lower index is picked first. Under ``omp`` and ``ols`` a
    channel that depends linearly on the kept ones is kept after all others.

    Args:
        gram: X'X [C, C].
        search: ``remove``, ``keep``, ``omp`` or ``ols``; see `Thinet`.
    """
    order, _ = search_path(gram, search=search)
    return order


def search_path(gram: Tensor | Matrix, *, search: str) -> tuple[list[int], Matrix]:
    """Returns the order of removal and the squared error after each removal, float64 [C].

    The error is that of the unscaled channels (remove, keep) or of the best fit (omp, ols).
    """
    import torch

    require_choice("search", search, SEARCHES)
    table = torch.as_tensor(gram).numpy(force=True).astype(np.float64)
    if search == "remove":
        return _remove(table)
    kept, errors = _keep(table) if search == "keep" else _pursue(table, fitted=search == "ols")
    return kept[::-1], errors[::-1][1:]


def _remove(gram: Matrix) -> tuple[list[int], Matrix]:
    """Grows the removed set T: f(T + j) = f(T) + 2 h_j + G_jj with h = G 1_T."""
    # 2 h + diagonal of G
    cost = gram.diagonal().copy()
    order, errors, error = [], [], 0.0
    for _ in range(len(gram)):
        chosen = int(cost.argmin())
        error += cost[chosen]
        cost += 2 * gram[chosen]
        cost[chosen] = np.inf
        order.append(chosen)
        errors.append(error)
    return order, np.array(errors)


def _keep(gram: Matrix) -> tuple[list[int], Matrix]:
    """Grows the kept set S: f(S + j) = f(S) - 2 c_j + G_jj with c = G (1 - 1_S).

    Returns:
        The channels in the order of keeping; the error of keeping 0, 1, ... C of them.
    """
    cost = gram.diagonal() - 2 * gram.sum(1)
    order, errors = [], [gram.sum()]
    for _ in range(len(gram)):
        chosen = int(cost.argmin())
        errors.append(errors[-1] + cost[chosen])
        cost += 2 * gram[chosen]
        cost[chosen] = np.inf
        order.append(chosen)
    return order, np.array(errors)


def _pursue(gram: Matrix, *, fitted: bool) -> tuple[list[int], Matrix]:
    """Grows the kept set with the best fit of its channels: orthogonal matching pursuit, or OLS.

    Row s of `basis` is X'u_s with u_s the s-th Gram-Schmidt direction, `reach` is X'r with r the
    residual, and `outside` the energy of each channel outside the span of the kept ones.

    Args:
        gram: X'X [C, C].
        fitted: whether gains are relative to `outside` (OLS) or to the channel's energy (OMP).

    Returns:
        As `_keep`.
    """
    size = len(gram)
    energy = gram.diagonal()
    outside, reach = energy.copy(), gram.sum(1)
    basis = np.empty((size, size))
    left = np.ones(size, dtype=bool)
    order, errors = [], [gram.sum()]
    for step in range(size):
        free = left & (outside > INDEPENDENT * energy)
        if not free.any():
            break
        gain = np.full(size, -1.0)
        np.divide(reach**2, outside if fitted else energy, out=gain, where=free)
        chosen = int(gain.argmax())
        found = gram[chosen] - basis[:step, chosen] @ basis[:step]
        basis[step] = found / np.sqrt(found[chosen])
        along = reach[chosen] / np.sqrt(found[chosen])
        reach -= along * basis[step]
        outside -= basis[step] ** 2
        left[chosen] = False
        order.append(chosen)
        errors.append(max(errors[-1] - along**2, 0.0))
    rest = left.nonzero()[0].tolist()
    return order + rest, np.array(errors + errors[-1:] * len(rest))


def _rising(errors: Matrix) -> Matrix:
    """Returns `errors` raised by last bits where they do not rise strictly."""
    scores = np.empty_like(errors)
    last = -1e-300
    for number, error in enumerate(errors.tolist()):
        last = max(error, last * (1 + 2.0**-52) + 1e-300)
        scores[number] = last
    return scores
