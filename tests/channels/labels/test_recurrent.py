"""Recurrent layers read channels; their own state stays whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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
    slimmed = check_exact(net, (2, 3, 8, 8), most_kept=0.95, macs=kind is not nn.LSTM)
    assert slimmed.rnn.input_size == slimmed.b.out_channels < 16
    assert slimmed.rnn.hidden_size == 7


def test_multiply_adds_of_the_input_follow_the_channels() -> None:
    cmap = trace(Reader(nn.LSTM, nn.ReLU()), torch.randn(1, 3, 8, 8))
    less = cmap.macs(Plan({})) - cmap.macs(Plan({"b": range(15)}))
    assert less == 12 * 9 * 64 + 8 * 4 * 7  # a row of b, a column of the gates in 8 steps


class Initial(nn.Module):
    """A state that is computed from channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.start, self.rnn = nn.Conv1d(3, 8, 1), nn.Linear(8, 6), nn.GRU(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.rnn(x.permute(2, 0, 1), self.start(x.mean(2))[None])[0]


def test_a_state_stays_whole(check_exact) -> None:
    assert trace(Initial(), torch.randn(1, 3, 5)).frozen == {"start": "the state of rnn"}
    check_exact(Initial(), (2, 3, 5), most_kept=0.95)
