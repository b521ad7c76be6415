"""Writes the forward of one module as the lines of a method that calls its children."""

from __future__ import annotations

import builtins
import keyword
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import _get_qualified_name

from prunebench.channels import in_mode
from prunebench.channels.untouched import untouched
from prunebench.errors import ConfigError, first_line

#: longest line of a method
WIDTH = 88
#: function of the module operator -> its expression
SIGNS = {
    **{"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}"},
    **{"truediv": "{} / {}", "floordiv": "{} // {}", "mod": "{} % {}", "pow": "{} ** {}"},
    **{"matmul": "{} @ {}", "neg": "-{}", "getitem": "{}[{}]", "eq": "{} == {}"},
    **{"lt": "{} < {}", "gt": "{} > {}", "le": "{} <= {}", "ge": "{} >= {}", "ne": "{} != {}"},
}
#: modules whose functions may be called -> their names in the file
KNOWN = {"torch.nn.functional.": "functional.", "torch.": "torch.", "math.": "math."}

#: operators that change their first operand in place -> their sign
IN_PLACE = {
    operator.iadd: "+=",
    operator.isub: "-=",
    operator.imul: "*=",
    operator.itruediv: "/=",
}
#: names that a variable must not have
RESERVED = ("self", "torch", "nn", "functional", "math")


def _recording(how: Any) -> Any:
    """Returns a method that records the in-place operator `how` in the graph."""

    def change(tensor: fx.Proxy, other: Any) -> fx.Proxy:
        return tensor.tracer.create_proxy("call_function", how, (tensor, other), {})

    return change


class Changing(fx.Proxy):
    """Stands for a tensor, and records operators that change it in place."""

    __iadd__ = _recording(operator.iadd)
    __isub__ = _recording(operator.isub)
    __imul__ = _recording(operator.imul)
    __itruediv__ = _recording(operator.itruediv)


class ChildrenWhole(fx.Tracer):
    """Traces the forward of one module; every child of it stays a call."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Returns the stand-in for the result of `node`."""
        return Changing(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Returns True: no child is traced."""
        return True


@dataclass
class Forward:
    """Holds a forward method as text.

    Attributes:
        arguments: as in its first line.
        lines: of its body.
    """

    arguments: str
    lines: list[str]


def forward_of(module: nn.Module, name: str) -> Forward:
    """Returns the forward of `module`, called `name` in its network.

    Raises:
        ConfigError: its course depends on values, or it calls functions outside torch.
    """
    if isinstance(module, fx.GraphModule):
        return Writer(module, module.graph, name).forward()
    try:
        with untouched(module), in_mode(module):
            graph = ChildrenWhole().trace(module)
    except Exception as error:
        raise ConfigError(
            f"the forward of {name or type(module).__name__} cannot be written out "
            f"({first_line(error)}); export to onnx or torch_export instead"
        ) from error
    return Writer(module, graph, name).forward()


class Writer:
    """Writes the nodes of a graph in the order in which they are computed.

    A result that only the next line uses is written into that line, as long as it fits.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, name: str) -> None:
        """Prepares to write the `graph` of `module`, called `name` in its network."""
        self.module, self.nodes, self.name = module, list(graph.nodes), name
        self.texts: dict[fx.Node, str] = {}
        #: names in use; a dict keeps their order
        self.names: dict[str, None] = {}
        #: node -> all nodes that are computed in its line
        self.inner: dict[fx.Node, set[fx.Node]] = {}
        places = enumerate(self.nodes)
        #: node -> the place of the last node that uses it
        self.last = {use: place for place, node in places for use in node.all_input_nodes}
        self.made = Forward("", [])

    def forward(self) -> Forward:
        """Returns the whole method."""
        arguments = []
        for node, following in zip(self.nodes, [*self.nodes[1:], None], strict=True):
            if node.op == "placeholder":
                self.texts[node] = self.named(str(node.target))
                default = f"={node.args[0]!r}" if node.args else ""
                arguments.append(f"{self.texts[node]}{default}")
            elif node.op == "output":
                self.made.lines.append(f"return {self.text(node.args[0])}")
            else:
                self.write(node, following)
        self.made.arguments = ", ".join(["self", *arguments])
        return self.made

    def write(self, node: fx.Node, following: fx.Node | None) -> None:
        """Writes one node, as a line of its own or for the line of the `following` node."""
        if node.op == "call_function" and node.target in IN_PLACE:
            changed, by = map(self.text, node.args)
            self.texts[node] = changed
            self.made.lines.append(f"{changed} {IN_PLACE[node.target]} {by}")
            return
        expression = self.expression(node)
        inner = {node}.union(*(self.inner.get(use, ()) for use in node.all_input_nodes))
        if following is not None and list(node.users) == [following]:
            once = following.all_input_nodes.count(node) == 1
            kept = following.target in IN_PLACE and following.args[0] is node
            if once and not kept and len(expression) < WIDTH - 30:
                self.texts[node], self.inner[node] = expression, inner
                return
        read = [self.texts[use] for part in inner for use in part.all_input_nodes]
        free = [name for name in self.names if name in read and self.is_free(name, node)]
        self.texts[node] = free[0] if free else self.named(node.name)
        self.made.lines.append(f"{self.texts[node]} = {expression}")

    def is_free(self, name: str, node: fx.Node) -> bool:
        """Returns whether no node after `node` uses the variable `name`."""
        place = self.nodes.index(node)
        return all(self.last.get(n, 0) <= place for n, text in self.texts.items() if text == name)

    def named(self, wish: str) -> str:
        """Returns a name like `wish` that is not in use, and reserves it."""
        name = wish.strip("*")
        while name in self.names or keyword.iskeyword(name) or name in RESERVED:
            name += "_"
        self.names[name] = None
        return name

    def expression(self, node: fx.Node) -> str:
        """Returns the expression that computes `node`."""
        words = [self.text(value) for value in node.args]
        words += [f"{key}={self.text(value)}" for key, value in node.kwargs.items()]
        if node.op == "get_attr":
            return path(self.module, str(node.target))
        if node.op == "call_module":
            return f"{path(self.module, str(node.target))}({', '.join(words)})"
        if node.op == "call_method":
            return f"{bracketed(words[0])}.{node.target}({', '.join(words[1:])})"
        return self.call(node, words)

    def call(self, node: fx.Node, words: list[str]) -> str:
        """Returns the call of a function.

        Raises:
            ConfigError: it is not a function of torch or Python.
        """
        assert callable(node.target)
        full = _get_qualified_name(node.target)
        place, _, short = full.rpartition(".")
        if node.target is getattr and isinstance(node.args[1], str):
            return f"{bracketed(words[0])}.{node.args[1]}"
        if place == "_operator" and short in SIGNS:
            if short == "getitem":
                return SIGNS[short].format(bracketed(words[0]), self.index(node.args[1]))
            return SIGNS[short].format(*map(bracketed, words))
        if hasattr(builtins, short) and place in ("builtins", ""):
            return f"{short}({', '.join(words)})"
        for prefix, written in KNOWN.items():
            if full.startswith(prefix) and "._" not in full:
                return f"{written}{full.removeprefix(prefix)}({', '.join(words)})"
        raise ConfigError(
            f"the forward of {self.name or 'the network'} calls {full}, which is not torch's; "
            "export to onnx or torch_export instead"
        )

    def index(self, value: Any) -> str:
        """Returns what goes between square brackets."""
        if isinstance(value, tuple):
            return ", ".join(map(self.index, value))
        if isinstance(value, slice):
            ends = [value.start, value.stop, *([value.step] if value.step is not None else [])]
            return ":".join("" if end is None else self.text(end) for end in ends)
        return "..." if value is Ellipsis else self.text(value)

    def text(self, value: Any) -> str:
        """Returns an argument as code."""
        if isinstance(value, fx.Node):
            return self.texts[value]
        if isinstance(value, list | tuple):
            inner = ", ".join(map(self.text, value))
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{key!r}: {self.text(v)}' for key, v in value.items())}}}"
        if isinstance(value, slice):
            return f"slice({', '.join(map(self.text, (value.start, value.stop, value.step)))})"
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return str(value)
        if isinstance(value, torch.device):
            return f"torch.{value!r}"
        return repr(value)


def path(module: nn.Module, name: str) -> str:
    """Returns code for a member of `module`, such as ``self.layer1[0].conv1``."""
    expression, member = "self", module
    for part in name.split("."):
        if keeps_by_name(member):
            expression += f"[{part!r}]"
        else:
            expression += f".{part}" if part.isidentifier() else f"[{part}]"
        member = getattr(member, part)
    return expression


def keeps_by_name(module: nn.Module) -> bool:
    """Returns whether `module` only holds other modules by their names."""
    return type(module) in (nn.Module, nn.ModuleDict)


def bracketed(text: str) -> str:
    """Returns an operand, in brackets unless it binds more tightly than any operator."""
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and (sign == " " or (sign == "-" and at == 0)):
            return f"({text})"
    return text
