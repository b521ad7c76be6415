"""The example in channels/README.md is correct."""

from __future__ import annotations

from torch import Tensor, nn, randn

from prunebench.channels import Plan, slim, trace


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1)
        self.norm, self.c = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.norm(self.a(x) + self.b(x)))


def test_the_drawing_is_true() -> None:
    network = Drawing()
    cmap = trace(network, randn(1, 1, 4, 4))
    made = [ids.tolist() for ids in cmap.tape.made]
    assert made == [[1], [2, 3, 4], [5, 6, 7], [8, 9]]  # the drawing leaves the input's label out
    assert [cmap.class_of[n] for n in made[1]] == [cmap.class_of[n] for n in made[2]]
    [group] = cmap.groups
    assert (group.name, group.size) == ("a", 3)
    assert "c" in cmap.frozen
    small = slim(network, cmap, Plan({"a": [0, 2]}))
    assert [len(m.weight) for m in (small.a, small.b, small.norm)] == [2, 2, 2]
    assert small.c.weight.shape[:2] == (2, 2)
