"""Writes a network as classes of plain torch and one expression that builds it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from prunebench.channels import GatherChannels
from prunebench.channels.position_bias import PositionBiasConv2d
from prunebench.export.code.constructors import constructor
from prunebench.export.code.forwards import Forward, forward_of, keeps_by_name

#: longest line of the expression
WIDTH = 100
#: classes for modules of prunebench that torch lacks, as the file defines them
GATHER = '''class Gather(nn.Module):
    """Picks channels by index; index -1 gives a channel of zeros."""

    def __init__(self, channels, dim=1):
        super().__init__()
        self.dim = dim
        self.register_buffer("index", torch.zeros(channels, dtype=torch.int64))

    def forward(self, x):
        picked = x.index_select(self.dim, self.index.clamp(min=0))
        there = (self.index >= 0).view([-1 if d == self.dim else 1 for d in range(x.dim())])
        return torch.where(there, picked, picked.new_zeros(()))
'''
POSITION_BIAS = '''class PositionBiasConv2d(nn.Conv2d):
    """A convolution with a bias of its own at every position."""

    def __init__(self, shape, *given, **named):
        super().__init__(*given, **named)
        self.place_bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return super().forward(x) + self.place_bias
'''
PARTS = '''class Parts(nn.Module):
    """A module made of the parts that it is given by name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
'''


@dataclass(frozen=True)
class Expression:
    """Holds an expression such as a call, to be written in one line or several.

    Attributes:
        call: up to its opening bracket; the whole expression if there are no arguments.
        arguments: prefix (such as ``name=``) and expression of each argument.
        end: closing brackets.
    """

    call: str
    arguments: Sequence[tuple[str, Expression]] = ()
    end: str = ""

    def lines(self, before: str, after: str, indent: int) -> list[str]:
        """Returns the expression in lines up to `WIDTH`, after `before` and followed by `after`."""
        text = f"{' ' * indent}{before}{self}{after}"
        if not self.arguments or len(text) <= WIDTH:
            return [text]
        found = [f"{' ' * indent}{before}{self.call}"]
        for name, inner in self.arguments:
            found += inner.lines(name, ",", indent + 4)
        return [*found, f"{' ' * indent}{self.end}{after}"]

    def __str__(self) -> str:
        """Returns the expression in one line."""
        inner = ", ".join(f"{name}{value}" for name, value in self.arguments)
        return f"{self.call}{inner}{self.end}"


@dataclass
class Classes:
    """Collects the text of the classes that a network needs.

    Attributes:
        named: text without its name -> name and whole text.
        helpers: texts of prunebench's own classes that the network uses.
    """

    named: dict[str, tuple[str, str]] = field(default_factory=dict)
    helpers: list[str] = field(default_factory=list)

    def make(self, module: nn.Module, name: str = "") -> Expression:
        """Returns the expression that builds `module`, called `name` in its network.

        Raises:
            ConfigError: it needs more than torch.
        """
        children = [(key, child) for key, child in module._modules.items() if child is not None]
        kind = type(module)
        if isinstance(module, GatherChannels):
            self.add_helper(GATHER)
            dim = "" if module.dim == 1 else f", dim={module.dim}"
            return Expression(f"Gather({len(module.positions)}{dim})")
        if kind is PositionBiasConv2d:
            self.add_helper(POSITION_BIAS)
            shape = tuple(module.get_parameter("place_bias").shape)
            made = constructor(module).partition("(")[2]
            return Expression(f"PositionBiasConv2d({shape}, {made}")
        if keeps_by_name(module):
            return Expression(
                "nn.ModuleDict({", self.expressions_of(children, name, '"{}": '), "})"
            )
        if isinstance(module, nn.ModuleList):
            return Expression("nn.ModuleList([", self.expressions_of(children, name, ""), "])")
        if kind.forward is nn.Sequential.forward:
            return self.sequence(children, name)
        if kind.__module__.startswith("torch.nn."):
            return Expression(constructor(module))
        return self.as_own_class(module, children, name)

    def sequence(self, children: list[tuple[str, nn.Module]], name: str) -> Expression:
        """Returns the expression that builds a sequence of modules."""
        if [key for key, _ in children] == [str(n) for n in range(len(children))]:
            return Expression("nn.Sequential(", self.expressions_of(children, name, ""), ")")
        pairs = self.expressions_of(children, name, '("{}", ')
        closed = [(key, replace(made, end=f"{made.end})")) for key, made in pairs]
        return Expression("nn.Sequential(OrderedDict([", closed, "]))")

    def expressions_of(
        self, children: list[tuple[str, nn.Module]], name: str, before: str
    ) -> list[tuple[str, Expression]]:
        """Returns the expressions that build `children`, each with its prefix from `before`."""
        return [
            (before.format(key), self.make(child, f"{name}.{key}" if name else key))
            for key, child in children
        ]

    def as_own_class(
        self, module: nn.Module, children: list[tuple[str, nn.Module]], name: str
    ) -> Expression:
        """Returns the expression that builds a module outside torch, with its own class."""
        self.add_helper(PARTS)
        forward = forward_of(module, name)
        tensors = [*module._parameters.items(), *module._buffers.items()]
        held = [(f"{key}=", Expression(tensor_like(t))) for key, t in tensors if t is not None]
        parts = [*self.expressions_of(children, name, "{}="), *held]
        return Expression(f"{self.class_name(type(module), forward)}(", parts, ")")

    def class_name(self, kind: type[nn.Module], forward: Forward) -> str:
        """Returns the name of the class with this forward; adds the class if it is new."""
        about = (inspect.getdoc(kind) or "").partition("\n")[0].strip().replace("\\", "")
        body = [f"    def forward({forward.arguments}):", *(f"        {x}" for x in forward.lines)]
        text = "\n".join([f'    """{about or kind.__name__}"""', "", *body, ""])
        key = f"{kind.__name__}\n{text}"
        if key not in self.named:
            taken = {name for name, _ in self.named.values()}
            name = kind.__name__
            for number in range(2, len(taken) + 2):
                name = f"{kind.__name__}{number}" if name in taken else name
            self.named[key] = (name, f"class {name}(Parts):\n{text}")
        return self.named[key][0]

    def add_helper(self, text: str) -> None:
        """Adds the text of one of prunebench's own classes, once."""
        if text not in self.helpers:
            self.helpers.append(text)

    @property
    def texts(self) -> list[str]:
        """The texts of all classes, helpers first."""
        return [*self.helpers, *(text for _, text in self.named.values())]


def tensor_like(tensor: Tensor) -> str:
    """Returns an expression for a parameter or buffer with the shape and dtype of `tensor`."""
    dtype = "" if str(tensor.dtype) == "torch.float32" else f", dtype={tensor.dtype}"
    made = f"torch.zeros({tuple(tensor.shape)}{dtype})"
    return f"nn.Parameter({made})" if isinstance(tensor, nn.Parameter) else made
