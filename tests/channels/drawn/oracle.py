"""Judges a cut in float64 from the remaining numbers alone, not from how it was made.

Every weight of the dense network is a different number, so the numbers in the slim one tell which
indices stayed. A dense network with zeros everywhere else must compute the same. Of
`prunebench.channels` it only calls `trace`, `slim` and `Plan` (and the product's own checks,
`verify` and `require_as_planned`, which must agree).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from drawn.norms import group_norm, layer_norm, rms_norm
from drawn.objects import everything, gap, portrait, tensors
from drawn.program import Program, call, uneven
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from prunebench.channels import Plan, require_as_planned, slim, trace, verify
from prunebench.errors import PrunebenchError

CUT, FROZEN, REFUSED = "cut", "frozen", "refused"
WRONG, DAMAGED, TRACEBACK = "WRONG", "DAMAGED", "TRACEBACK"


@dataclass(frozen=True)
class Verdict:
    """What became of a network, why, and the share of its parameters that is left."""

    word: str
    why: str
    share: float = 1.0

    @property
    def good(self) -> bool:
        """Whether that is what surgery promises."""
        return self.word in (CUT, FROZEN, REFUSED)


class Bad(Exception):
    """Surgery broke a promise; carries the verdict."""

    def __init__(self, word: str, why: str) -> None:
        super().__init__(f"{word}: {why}")
        self.verdict = Verdict(word, why)


@dataclass(frozen=True)
class Surgery:
    """The two functions that are judged; a test of the oracle replaces one."""

    trace: Callable[..., Any] = trace
    slim: Callable[..., nn.Module] = slim


def judge(program: Program, surgery: Surgery | None = None, *, plan: int = 0) -> Verdict:
    """Cuts the network of `program` by a drawn plan and says what became of it."""
    call(program.build(), program.example(1))  # a fragment that does not run is no finding
    try:
        return _judge(program, surgery or Surgery(), plan)
    except Bad as bad:
        return bad.verdict


def _judge(program: Program, surgery: Surgery, plan: int) -> Verdict:
    net = program.build()
    before, state = portrait(net), torch.get_rng_state()
    try:
        cmap = surgery.trace(net, program.example(2))
        _check_reasons(net, cmap, surgery.trace(program.build(), program.example(2)))
        kept = uneven(cmap, Random(f"{program.seed} {plan}"))
        small = surgery.slim(net, cmap, Plan(kept))
        alarm = false_alarm(net, small, cmap, Plan(kept))
    except PrunebenchError as error:
        _check_message(str(error))
        _check_untouched(program, net, before, state)
        return Verdict(REFUSED, str(error))
    except Bad:
        raise
    except Exception as error:
        raise Bad(TRACEBACK, f"{type(error).__name__}: {str(error).splitlines()[:1]}") from error
    _check_untouched(program, net, before, state)
    if not cmap.groups:
        return Verdict(FROZEN, "; ".join(sorted({*cmap.frozen.values()})))
    have = run(small, program.example(3))
    _check_alone(net, small, program.example(3), have)
    _check_counts(program, small, cmap, Plan(kept))
    _check_flags(program.build(), small)
    try:
        error = verify(program.build(), small, cmap, Plan(kept), program.example(6))
    except PrunebenchError as refused:
        raise Bad(WRONG, f"verify refuses what slim does not: {refused}") from refused
    check_same(program, small, training=False)
    if not error < 1e-4:
        raise Bad(WRONG, f"verify calls an exact cut wrong by {error:.1e}")
    if not re.search("dropout|spectral", program.source()):  # these differ by chance in training
        check_same(program, small, training=True)
    if alarm:
        raise Bad(WRONG, f"an exact cut is refused: {alarm}")
    share = cmap.params(Plan(kept)) / cmap.params(Plan({}))
    return Verdict(CUT, "exact", share)


def false_alarm(net: nn.Module, small: nn.Module, cmap: Any, plan: Plan) -> str:
    """Returns what `require_as_planned` says, if anything."""
    try:
        require_as_planned(net, small, cmap, plan)
    except PrunebenchError as error:
        return str(error)
    return ""


# -- what must hold ----------------------------------------------------------------------------


def _check_message(text: str) -> None:
    """Asks for one line that says something and is the same on every run."""
    if (
        not text.strip()
        or "\n" in text
        or re.search(r"0x[0-9a-f]{6}|<(function|built-in|bound)|: *$", text)
    ):
        raise Bad(WRONG, f"a refusal that is no clear line in words: {text!r}")


def _check_reasons(net: nn.Module, cmap: Any, again: Any) -> None:
    """Asks for reasons of existing modules, in words, the same for the same network."""
    if not cmap.groups and not cmap.frozen:
        raise Bad(WRONG, "nothing can be cut and no reason is given")
    for name, reason in cmap.frozen.items():
        if name not in dict(net.named_modules()):
            raise Bad(WRONG, f"'{name}' is no module, but frozen: {reason!r}")
        _check_message(reason)
    if list(cmap.frozen.items()) != list(again.frozen.items()):
        raise Bad(WRONG, "the reasons differ from run to run")


def _check_untouched(program: Program, net: nn.Module, before: Any, state: Tensor) -> None:
    """Asks for the model as it was, and for one that runs as if nothing had happened."""
    after = portrait(net)
    for path in [*before, *after]:
        if before.get(path) != after.get(path):
            raise Bad(DAMAGED, f"{path} was {before.get(path)} and is {after.get(path)}")
    if not torch.equal(state, torch.get_rng_state()):
        raise Bad(DAMAGED, "random numbers were drawn")
    try:
        same = gap(run(net, program.example(4)), run(program.build(), program.example(4)))
    except Exception as error:
        raise Bad(DAMAGED, f"the model no longer runs: {error}") from error
    if same != 0:
        raise Bad(DAMAGED, f"the model computes something else, by {same:.1e}")


def _check_alone(net: nn.Module, small: nn.Module, example: Any, have: list[Tensor]) -> None:
    """Asks for a slim network that shares nothing with the dense one."""
    mine = {t.untyped_storage().data_ptr() for t in everything(small) if t.numel()}
    for t in everything(net):
        if t.numel() and t.untyped_storage().data_ptr() in mine:
            raise Bad(WRONG, "the slim network shares storage with the dense one")
    with torch.no_grad():
        for t in everything(net):
            if t.is_floating_point():
                t.fill_(torch.nan)
    if gap(run(small, example), have) != 0:
        raise Bad(WRONG, "the slim network computes with weights of the dense one")


def _check_counts(program: Program, small: nn.Module, cmap: Any, plan: Plan) -> None:
    """Asks for the planned multiply-adds and parameters."""
    params = sum(p.numel() for p in small.parameters())
    if cmap.params(plan) != params:
        raise Bad(WRONG, f"{cmap.params(plan)} parameters were planned, {params} are left")
    with FlopCounterMode(display=False) as counter:
        call(small, program.example(2, count=1))
    macs = counter.get_total_flops() / 2
    if cmap.macs(plan) != macs:
        raise Bad(WRONG, f"{cmap.macs(plan)} multiply-adds were planned, {macs} are done")


def _check_flags(dense: nn.Module, small: nn.Module) -> None:
    """Asks for every module's mode and every parameter's requires_grad."""
    modes = {name: m.training for name, m in small.named_modules()}
    for name, module in dense.named_modules():
        if modes.get(name, module.training) != module.training:
            raise Bad(WRONG, f"{name} is in another mode")
    grads = {name: p.requires_grad for name, p in small.named_parameters()}
    for name, p in dense.named_parameters():
        if grads.get(name) != p.requires_grad:
            raise Bad(WRONG, f"{name} has requires_grad={grads.get(name)}")


def check_same(program: Program, small: nn.Module, *, training: bool) -> None:
    """Asks for the outputs of the dense network with zeros in place of what is gone."""
    dense = program.build()
    run(dense, program.example(3))  # code that changes its own weights has done so
    zeroed(plain(dense), plain(small))
    dense.train(training)
    small.train(training)
    have = run(small, program.example(5))
    with patch.multiple(F, layer_norm=layer_norm, group_norm=group_norm, rms_norm=rms_norm):
        want = run(dense, program.example(5))
    error = gap(have, want)
    single = (
        any(p.dtype == torch.float32 for p in dense.parameters()) or "float()" in program.source()
    )
    if not error < (1e-4 if single else 1e-9):
        mode = "training" if training else "eval"
        shapes = [[tuple(t.shape) for t in outputs] for outputs in (want, have)]
        off = f"by {error:.1e}" if np.isfinite(error) else f"{shapes[0]} became {shapes[1]}"
        raise Bad(WRONG, f"the outputs of the slim network are off in {mode} mode: {off}")


# -- matching by number ------------------------------------------------------------------------


def plain(net: nn.Module) -> nn.Module:
    """Turns weights that are computed from others into plain parameters."""
    for module in net.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)
        elif hasattr(module, "weight_orig"):
            nn.utils.remove_spectral_norm(module)
        elif hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return net


def zeroed(dense: nn.Module, small: nn.Module) -> None:
    """Sets everything in `dense` that `small` does not hold to zero (variances to one)."""
    left = dict(named(small))
    with torch.no_grad():
        for name, t in named(dense):
            if name not in left:
                raise Bad(WRONG, f"{name} is missing in the slim network")
            if t.shape == left[name].shape and torch.equal(t, left[name]):
                continue
            if not t.is_floating_point() or len(t.unique()) < t.numel() // 2:
                continue  # no numbers to tell positions by: a constant, kept whole
            index = stayed(name, t, left[name])
            whole = torch.ones_like(t) if name.endswith("running_var") else torch.zeros_like(t)
            whole[np.ix_(*index)] = t[np.ix_(*index)]
            t.copy_(whole)


def stayed(name: str, big: Tensor, small: Tensor) -> list[list[int]]:
    """Returns which indices of each dimension of `big` are left in `small`."""
    if big.dim() != small.dim() or small.numel() == 0:
        raise Bad(WRONG, f"{name} has shape {tuple(small.shape)}, was {tuple(big.shape)}")
    numbers, order = big.reshape(-1).sort()
    found = order[
        torch.searchsorted(numbers, small * (1 - 1e-12 * small.sign())).clamp(max=big.numel() - 1)
    ]
    places = np.unravel_index(found.numpy(), big.shape)
    index = []
    for dim, size in enumerate(small.shape):
        where, told = np.moveaxis(places[dim], dim, 0), np.moveaxis(small.numpy() != 0, dim, 0)
        index.append(
            [int(np.median(where[i][told[i]])) if told[i].any() else 0 for i in range(size)]
        )
    if not torch.allclose(big[np.ix_(*index)], small, rtol=1e-11, atol=0):
        raise Bad(WRONG, f"{name} is no selection of what it was")
    if any(a >= b for rows in index for a, b in zip(rows, rows[1:], strict=False)):
        raise Bad(WRONG, f"{name} holds its channels in another order, or twice")
    return index


def named(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields every parameter and buffer under each of its names."""
    yield from ((n, p.detach()) for n, p in net.named_parameters(remove_duplicate=False))
    yield from net.named_buffers(remove_duplicate=False)


def run(net: nn.Module, example: Any) -> list[Tensor]:
    """Returns every tensor in what `net` returns, or says that it does not run."""
    try:
        return [t.detach().clone() for t in tensors(call(net, example))]
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        raise Bad(WRONG, f"a network does not run: {text}") from error
