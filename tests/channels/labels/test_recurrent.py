"""Recurrent layers read channels, but their own state is never cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunebench.channels import Plan, trace


class Reader(nn.Module):
    """Convolutions whose columns are read one after the other, as in text recognition."""

    def __init__(self, kind: type[nn.RNNBase], act: nn.Module, **more: object) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1)
        self.act, self.rnn = act, kind(16, 7, **more)
        self.last = nn.Linear(14 if more.get("bidirectional") else 7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.b(torch.relu(self.a(x)))).mean(2)
        x = x.permute(0, 2, 1) if self.rnn.batch_first else x.permute(2, 0, 1)
        return self.last(self.rnn(x)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("act", [nn.ReLU(), nn.Sigmoid()], ids=["relu", "sigmoid"])
@pytest.mark.parametrize("more", [{}, {"bidirectional": True, "num_layers": 2}], ids=["1", "2"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_input_is_cut(kind, act, more, batch_first, check_exact) -> None:
    net = Reader(kind, act, batch_first=batch_first, **more)
    slimmed = check_exact(net, (2, 3, 8, 3), most_kept=0.95, macs=kind is not nn.LSTM)
    assert slimmed.rnn.input_size == slimmed.b.out_channels < 16
    assert slimmed.rnn.hidden_size == 7


def test_multiply_adds_of_the_input_follow_the_channels() -> None:
    cmap = trace(Reader(nn.LSTM, nn.ReLU()), torch.randn(1, 3, 8, 8))
    less = cmap.macs(Plan({})) - cmap.macs(Plan({"b": range(15)}))
    assert less == 12 * 9 * 64 + 8 * 4 * 7  # a row of b, a column of the gates in 8 steps


@pytest.mark.parametrize(
    ("kind", "more"),
    [(nn.LSTM, {"proj_size": 3, "batch_first": True}), (nn.GRU, {"num_layers": 2, "bias": False})],
)
def test_what_goes_from_step_to_step_is_counted_in_each(kind, more) -> None:
    layer, sequence = kind(4, 7, **more), torch.randn(1, 5, 4)
    made = trace(layer, sequence)
    with FlopCounterMode(display=False) as counter:
        out, _ = layer.to("meta")(sequence.to("meta"))
    assert 2 * made.macs(Plan({})) == counter.get_total_flops()
    assert out.shape[:2] == (1, 5)


class Initial(nn.Module):
    """A state that is computed from channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.start, self.rnn = nn.Conv1d(3, 8, 1), nn.Linear(8, 6), nn.GRU(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.rnn(x.permute(2, 0, 1), self.start(x.mean(2))[None])[0]


def test_a_state_stays_whole(check_exact) -> None:
    told = {"start": "the state of rnn", "rnn": "its state is its own"}
    assert trace(Initial(), torch.randn(1, 3, 5)).frozen == told
    check_exact(Initial(), (2, 3, 5), most_kept=0.95)


class Cell(nn.Module):
    """A convolutional LSTM's: four gates out of one convolution of input and state."""

    def __init__(self, parts: str) -> None:
        super().__init__()
        self.gates, self.hidden, self.parts = nn.Conv2d(6 + 8, 4 * 8, 3, padding=1), 8, parts

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        made = self.gates(torch.cat([x, h], 1))
        if self.parts == "chunk":
            i, f, o, g = made.chunk(4, 1)
        else:
            i, f, o, g = made.split(self.hidden, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Video(nn.Module):
    """Runs a cell over the images of a clip, from a state that is a convolution's or zeros."""

    def __init__(self, parts: str = "chunk", *, zeros: bool = False) -> None:
        super().__init__()
        self.a, self.start = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.cell, self.last, self.zeros = Cell(parts), nn.Conv2d(8, 5, 1), zeros

    def forward(self, x: Tensor) -> Tensor:
        frames = [torch.relu(self.a(x[:, at])) for at in range(x.size(1))]
        h = self.start(frames[0])
        if self.zeros:
            h = torch.zeros(len(x), self.cell.hidden, *x.shape[3:], dtype=x.dtype, device=x.device)
        c, made = h, []
        for frame in frames:
            h, c = self.cell(frame, (h, c))
            made.append(self.last(h))
        return torch.stack(made, 1)


@pytest.mark.parametrize("parts", ["chunk", "split"])
def test_the_state_of_a_cell_is_cut_with_its_gates(parts: str, check_exact) -> None:
    net = Video(parts)
    cmap = trace(net, torch.randn(1, 2, 3, 6, 6))
    assert {group.name: group.size for group in cmap.groups} == {"a": 6, "start": 8}
    sites = [(site.module, len(site.classes)) for site in cmap.group("start").producers]
    assert sites == [("start", 8), ("cell.gates", 32)]
    slimmed = check_exact(net, (2, 2, 3, 6, 6), most_kept=0.7)
    assert slimmed.cell.gates.out_channels == 4 * slimmed.start.out_channels < 32


def test_a_state_of_a_fixed_number_of_zeros_stays_whole(check_exact) -> None:
    frozen = trace(Video(zeros=True), torch.randn(1, 2, 3, 6, 6)).frozen
    assert "8 channels are made where" in frozen["cell.gates"]


def test_all_that_keeps_its_width_is_told() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.a, self.rnn = nn.Embedding(9, 6), nn.Conv1d(6, 8, 1), nn.GRU(8, 5)
            self.pairs = nn.Parameter(torch.randn(4, 5, 5))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(self.words(x).transpose(1, 2))).permute(2, 0, 1)
            x = self.rnn(x)[0][-1]
            return nn.functional.bilinear(x, x, self.pairs)

    cmap = trace(Words(), torch.zeros(2, 3, dtype=torch.int64))
    assert [group.name for group in cmap.groups] == ["a"]
    assert cmap.frozen == {
        "words": "unknown operation embedding",
        "rnn": "its state is its own",
        "pairs": "unknown operation bilinear",
    }
