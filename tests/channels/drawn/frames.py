"""Defines what surrounds the fragments of a drawn network: its inputs, head and outputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Inputs:
    """Arguments of the forward and the line that joins them into `x`.

    Attributes:
        arguments: of the forward, after `self`.
        join: the line.
        init: what that line needs; `{c}` is the number of channels of `x`.
        extra: name -> shape of one sample of each input besides the image `x`.
        kind: how the example is given: ``tensor``, ``tuple`` or ``dict``.
    """

    arguments: str
    join: str
    init: str
    extra: tuple[tuple[str, tuple[int, ...]], ...]
    kind: str


EMBEDDED = ("x, t", "x = x + self.time(t)[:, :, None, None]", "self.time = nn.Linear(4, {c})")
SECOND = ("x, t", "x = torch.cat([x, self.second(t)], 1)", "self.second = block(2, 4)")

INPUTS = {
    "one_input": Inputs("x", "", "", (), "tensor"),
    "pair_of_inputs": Inputs(*EMBEDDED, (("t", (4,)),), "tuple"),
    "two_images": Inputs(*SECOND, (("t", (2, 8, 8)),), "tuple"),
    "dict_of_inputs": Inputs(*EMBEDDED, (("t", (4,)),), "dict"),
}

#: name -> (lines of the constructor, lines of the forward that make `y` from `x` [n, c, 8, 8])
HEADS = {
    "pooled": ("self.fc = nn.Linear({c}, 5)", "y = self.fc(x.mean((2, 3)))"),
    "flattened": (
        "self.fc1, self.fc = nn.Linear({c} * 4, 12), nn.Linear(12, 5)",
        "y = F.adaptive_avg_pool2d(x, 2).contiguous().view(x.size(0), -1)\n"
        "y = self.fc(F.relu(self.fc1(y)))",
    ),
    "map": ("self.out = conv({c}, 3, 1)", "y = self.out(x)"),
    "lstm": (
        "self.rnn, self.fc = nn.LSTM({c}, 6, batch_first=True), nn.Linear(6, 5)",
        "y = self.fc(self.rnn(x.mean(2).transpose(1, 2))[0][:, -1])",
    ),
    "gru_over_rows": (
        "self.rnn, self.fc = nn.GRU({c} * 8, 6, batch_first=True), nn.Linear(6, 5)",
        "y = self.fc(self.rnn(x.permute(0, 2, 1, 3).flatten(2))[0].mean(1))",
    ),
    "several": (
        "self.fc, self.out = nn.Linear({c}, 5), conv({c}, 2, 1)",
        "z, y = self.out(x), self.fc(x.amax((2, 3)))\ny = y + z.mean((1, 2, 3))[:, None]",
    ),
    "auxiliary_in_training": (
        "self.fc, self.aux = nn.Linear({c}, 5), nn.Linear({c}, 5)",
        "y = self.fc(x.mean((2, 3)))\nif self.training:\n    return y, self.aux(x.amax((2, 3)))",
    ),
}

#: name -> (definitions, what is returned for `y`, the head's tensor, and `x`, the features)
OUTPUTS = {
    "tensor": ("", "y"),
    "tuple_with_features": ("", "(y, x)"),
    "nested": ("", "{'y': [y, {'again': y * 2}], 'none': None}"),
    "dataclass": (
        "@dataclasses.dataclass\nclass Out:\n    y: torch.Tensor\n    n: int = 1\n", "Out(y)"
    ),
    "namespace": ("", "types.SimpleNamespace(y=y, n=1)"),
    "own_class": (
        "class Out:\n    def __init__(self, y):\n        self.parts = [y]\n", "Out(y)"
    ),
    "own_mapping": ("", "collections.UserDict(y=y)"),
    "slots": (
        "class Out:\n    __slots__ = ('y',)\n    def __init__(self, y):\n        self.y = y\n",
        "Out(y)",
    ),
    "named_tuple": ("Out = collections.namedtuple('Out', 'y x')\n", "Out(y, x.mean((2, 3)))"),
    "generator": ("", "iter([y])"),
}  # fmt: skip
