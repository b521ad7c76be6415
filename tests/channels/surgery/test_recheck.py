"""A cut network that moves channels otherwise than the dense one is noticed, named or mended."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunebench.channels import Plan, slim, trace, verify
from prunebench.channels.surgery.graph import forward_graph
from prunebench.channels.surgery.recheck import Recheck, replay
from prunebench.channels.surgery.slim import keep_only
from prunebench.errors import PruningError


class Swap(nn.Module):
    """Swaps the halves of what a convolution makes, by numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(F.relu(torch.cat([x[:, 2:], x[:, :2]], 1)))


@pytest.mark.parametrize(
    ("kept", "wrong"), [((0, 2), True), ((1, 2, 3), True), ((0, 1, 2, 3), False)]
)
def test_a_channel_in_the_wrong_place_is_noticed(kept: tuple[int, ...], wrong: bool) -> None:
    model = Swap().eval()
    cmap = trace(model, torch.randn(1, 3, 2, 2))
    classes = cmap.keeps(Plan({"a": kept}))
    found = replay(keep_only(model, cmap, classes), Recheck(cmap, classes))
    assert (found is not None) == wrong
    if found is not None:
        assert "relu meets other channels" in found.why
        assert found.where == "the forward of the network"
        assert found.groups == ["a"]


def test_gathers_put_it_right_and_modes_come_along() -> None:
    model, example = Swap(), torch.randn(2, 3, 2, 2)
    model.b.eval()
    cmap, plan = trace(model, example), Plan({"a": (1, 2, 3)})
    slimmed = slim(model, cmap, plan)
    assert isinstance(slimmed, fx.GraphModule)
    assert verify(model, slimmed, cmap, plan, example) < 1e-5
    assert (slimmed.training, slimmed.a.training, slimmed.b.training) == (True, True, False)


def test_a_forward_that_differs_between_the_modes_is_no_graph() -> None:
    class Moody(nn.Module):
        """Asks for its mode outside any layer that could be one node."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if self.training else self.a(x) + 1

    model = Moody().eval()
    model.a.train()
    with pytest.raises(PruningError, match="differs between training and eval mode"):
        forward_graph(model)
    assert (model.training, model.a.training) == (False, True)
