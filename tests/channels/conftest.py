"""Fixtures of the surgery tests: scrambled statistics, random plans, one check of exactness."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunebench.channels import ChannelMap, Plan, slim, trace, verify

Check = Callable[..., nn.Module]


def _scramble(model: nn.Module, generator: torch.Generator) -> None:
    """Makes every channel different, so that any mixed-up index shows."""

    def fill(t: Tensor, low: float, high: float) -> None:
        t.copy_(torch.rand(t.shape, generator=generator, dtype=torch.float64) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            for name in ("weight", "running_var"):
                t = getattr(module, name, None)
                if isinstance(t, Tensor) and t.dim() == 1:
                    fill(t, 0.5, 1.5)
            for name in ("bias", "running_mean"):
                t = getattr(module, name, None)
                if isinstance(t, Tensor) and t.dim() == 1:
                    fill(t, -0.3, 0.3)
        for parameter in model.parameters():
            if parameter.numel() and not parameter.any():
                fill(parameter, -0.3, 0.3)  # zero-initialised heads and gains hide everything


def _random_plan(cmap: ChannelMap, generator: torch.Generator) -> Plan:
    kept = {}
    for group in cmap.groups:
        count = max(1, round(group.size * (0.4 + 0.4 * float(torch.rand((), generator=generator)))))
        order = torch.randperm(group.size, generator=generator)
        kept[group.name] = sorted(order[:count].tolist())
    return Plan(kept)


@pytest.fixture
def scramble() -> Callable[[nn.Module], None]:
    return lambda model: _scramble(model, torch.Generator().manual_seed(1))


@pytest.fixture
def random_plan() -> Callable[[ChannelMap, int], Plan]:
    return lambda cmap, seed: _random_plan(cmap, torch.Generator().manual_seed(seed))


@pytest.fixture
def check_exact() -> Check:
    """Returns a check: masked == slimmed in float64, and the counts are those of the slim net."""

    def check(
        model: nn.Module,
        shape: tuple[int, ...],
        *,
        seed: int = 0,
        most_kept: float = 0.85,
        macs: bool = True,
    ) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        model = model.double().eval()
        _scramble(model, generator)
        example = torch.randn(shape, generator=generator, dtype=torch.float64)
        cmap = trace(model, example)
        plan = _random_plan(cmap, generator)
        slimmed = slim(model, cmap, plan)
        error = verify(model, slimmed, cmap, plan, example)
        assert error < 1e-9
        params = sum(p.numel() for p in slimmed.parameters())
        assert params == cmap.params(plan)
        assert params <= most_kept * cmap.params(Plan({})), "hardly anything was pruned"
        if macs:
            with FlopCounterMode(display=False) as counter:
                slimmed(example[:1])
            assert counter.get_total_flops() == 2 * cmap.macs(plan)
        with torch.no_grad():
            whole = model(example)
            assert not torch.equal(whole, slimmed(example)), "the plan changed nothing"
        again = trace(slimmed, example)
        assert {g.name: g.size for g in again.groups} == {
            g.name: len(plan.kept[g.name]) for g in cmap.groups
        }
        return slimmed

    return check
