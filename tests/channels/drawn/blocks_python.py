"""Fragments whose Python is unusual: caches, hooks, closures, modes, dtypes, other dimensions."""

from __future__ import annotations

from random import Random

from drawn.block import Block, wider


def grid_cache(n: str, c: int, r: Random) -> Block:
    start = r.choice(["torch.zeros(1)", "None"])
    return Block(
        f"self.{n}, self.{n}_grid = conv({c}, {c}), {start}",
        f"x = self.{n}(x)\n"
        f"if self.{n}_grid is None or self.{n}_grid.shape[-2:] != x.shape[-2:]:\n"
        f"    self.{n}_grid = torch.ones(x.shape[-2:], dtype=x.dtype, device=x.device).cumsum(0)\n"
        f"x = x + self.{n}_grid", c,
    )  # fmt: skip


def buffer_cache(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = conv({c}, {c})\n"
        f"self.register_buffer('{n}_seen', torch.zeros(1), persistent={r.choice([True, False])})",
        f"x = F.relu(self.{n}(x))\n"
        f"self.{n}_seen = torch.ones_like(x[:1, :1]) * 2\n"
        f"x = x * self.{n}_seen", c,
    )  # fmt: skip


def kept_features(n: str, c: int, r: Random) -> Block:
    hold = r.choice([("{}", "['x'] = x"), ("[]", ".append(x)")])
    take = {"{}": "['x']", "[]": ".pop()"}[hold[0]]
    return Block(
        f"self.{n}, self.{n}_b, self.{n}_kept = block({c}, {c}), block({c}, {c}), {hold[0]}",
        f"x = self.{n}(x)\nself.{n}_kept{hold[1]}\nx = self.{n}_b(x) + self.{n}_kept{take}", c,
    )  # fmt: skip


def forward_counter(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_calls = block({c}, {c}), 0\n"
        f"self.register_buffer('{n}_steps', torch.zeros((), dtype=torch.int64))",
        f"x = self.{n}(x)\nself.{n}_calls += 1\nself.{n}_steps += 1", c,
    )  # fmt: skip


def hook(n: str, c: int, r: Random) -> Block:
    after = r.choice([
        f"net.{n}.register_forward_hook(lambda m, i, o: o * 2)",
        f"net.{n}.register_forward_pre_hook(lambda m, i: (i[0] + 1,))",
        f"net.{n}.register_forward_hook(lambda m, i, o: None)",
    ])  # fmt: skip
    return Block(f"self.{n} = block({c}, {c})", f"x = self.{n}(x)", c, after=after)


def hook_over_self(n: str, c: int, r: Random) -> Block:
    after = r.choice([
        f"net.{n}.register_forward_hook(lambda m, i, o: net.found.__setitem__('{n}', o))",
        f"net.{n}.register_forward_hook(lambda m, i, o, found=net.found: found.update({n}=o))",
    ])  # fmt: skip
    return Block(
        f"self.{n} = block({c}, {c})", f"self.{n}(x)\nx = self.found['{n}']", c, after=after
    )


def hook_runs_another(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_b = block({c}, {c}), conv({c}, {c})", f"x = self.{n}(x)", c,
        after=f"net.{n}.register_forward_hook(lambda m, i, o: o + net.{n}_b(i[0]))",
    )  # fmt: skip


def replaced_forward(n: str, c: int, r: Random) -> Block:
    after = r.choice([
        f"net.{n}.forward = torch.autocast('cpu', enabled=False)(net.{n}.forward)",
        f"net.{n}.forward = functools.partial(type(net.{n}).forward, net.{n})",
        f"old_{n} = net.{n}.forward\nnet.{n}.forward = lambda x: old_{n}(x) * 2",
        "net.forward = torch.autocast('cpu', enabled=False)(net.forward)",
        f"net.{n}.forward = types.MethodType(lambda self, x: F.relu(self[0](x)), net.{n})",
    ])  # fmt: skip
    return Block(f"self.{n} = block({c}, {c})", f"x = self.{n}(x)", c, after=after)


def replaced_class(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = conv({c}, {c})\nself.{n}.__class__ = Loud{n}", f"x = self.{n}(x)", c,
        f"""
class Loud{n}(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)
""",
    )  # fmt: skip


def parent(n: str, c: int, r: Random) -> Block:
    link = r.choice(["weakref.ref(self)", "[self]", "lambda: self"])
    call = "()" if "ref" in link or "lambda" in link else "[0]"
    return Block(
        f"self.{n}, self.{n}_scale = Child{n}({c}), nn.Parameter(torch.ones({c}, 1, 1))\n"
        f"self.{n}.owner = {link}",
        f"x = self.{n}(x)", c,
        f"""
class Child{n}(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = block(c, c)
    def forward(self, x):
        return self.a(x) * self.owner{call}.{n}_scale
""",
    )  # fmt: skip


def functions_kept(n: str, c: int, r: Random) -> Block:
    kept = r.choice([
        f"[self.{n}_a.forward, F.relu]", f"[lambda x: self.{n}_a(x), torch.tanh]",
        f"[functools.partial(F.conv2d, weight=self.{n}_a.weight, padding=1), F.relu]",
    ])  # fmt: skip
    return Block(
        f"self.{n}_a = conv({c}, {c})\nself.{n}_steps = {kept}",
        f"for step in self.{n}_steps:\n    x = step(x)", c,
    )  # fmt: skip


def by_mode(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        f"if self.training:\n    x = x + self.{n}_b(x)",
        "x = x * 2 if self.training else x",
        f"x = self.{n}_b(x) if self.training else x",
        f"if not self.training:\n    x = x + self.{n}_b(x)",
    ])  # fmt: skip
    return Block(
        f"self.{n}, self.{n}_b = block({c}, {c}), conv({c}, {c})", f"x = self.{n}(x)\n{code}", c
    )


def functional_dropout(n: str, c: int, r: Random) -> Block:
    code = r.choice(["F.dropout", "F.dropout2d"])
    return Block(
        f"self.{n} = block({c}, {c})",
        f"a, b = {code}(self.{n}(x), 0.2, self.training).chunk(2, 1)\nx = torch.cat([b, a], 1)", c,
    )  # fmt: skip


def frozen_norm(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = block({c}, {c})", f"x = self.{n}(x)", c,
        after=f"net.{n}[1].eval()\nfor p in net.{n}.parameters():\n    p.requires_grad_(False)",
    )  # fmt: skip


def mixed_dtypes(n: str, c: int, r: Random) -> Block:
    if r.random() < 0.5:
        return Block(
            f"self.{n} = conv({c}, {c})", f"x = self.{n}(x.float()).double()", c,
            after=f"net.{n}.float()",
        )  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"x = self.{n}(x).float().relu().double()", c)


def one_dimension(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    return Block(
        f"self.{n} = nn.Sequential(nn.Conv1d({c}, {w}, 3, padding=1), nn.BatchNorm1d({w}), "
        f"nn.ReLU(), nn.Conv1d({w}, {c}, 1))",
        f"x = self.{n}(x.flatten(2)).unflatten(2, (8, 8))", c,
    )  # fmt: skip


def three_dimensions(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    return Block(
        f"self.{n} = nn.Sequential(nn.Conv3d({c}, {w}, 3, padding=1), nn.BatchNorm3d({w}), "
        f"nn.ReLU(), nn.ConvTranspose3d({w}, {c}, 1))",
        f"x = self.{n}(x.unflatten(2, (2, 4))).flatten(2, 3)", c,
    )  # fmt: skip


def mixing_positions(n: str, c: int, r: Random) -> Block:
    bias = r.choice([True, False])
    return Block(
        f"self.{n}, self.{n}_m = block({c}, {c}), nn.Linear(64, 64, bias={bias})",
        f"x = self.{n}(x)\nx = x + self.{n}_m(x.flatten(2)).unflatten(2, (8, 8))", c,
    )  # fmt: skip


def attention(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}_q, self.{n}_o = nn.Linear({c}, {3 * c}), nn.Linear({c}, {c})",
        "y = x.flatten(2).transpose(1, 2)\n"
        f"q, k, v = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in self.{n}_q(y).chunk(3, -1))\n"
        f"y = y + self.{n}_o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))\n"
        "x = y.transpose(1, 2).unflatten(2, (8, 8))", c,
    )  # fmt: skip


def between_modules(n: str, c: int, r: Random) -> Block:
    make, take = r.choice([
        ("{'a': x, 'b': x * 2}", "y['a'] + y['b']"), ("(x, [x * 2])", "y[0] + y[1][0]"),
        ("types.SimpleNamespace(a=x, b=x * 2)", "y.a + y.b"),
        ("collections.namedtuple('Pair', 'a b')(x, x * 2)", "y.a + y.b"),
    ])  # fmt: skip
    return Block(
        f"self.{n} = Maker{n}({c})", f"y = self.{n}(x)\nx = {take}", c,
        f"""
class Maker{n}(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = block(c, c)
    def forward(self, x):
        x = self.a(x)
        return {make}
""",
    )  # fmt: skip


def checkpointed(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = block({c}, {c})",
        f"x = torch.utils.checkpoint.checkpoint(self.{n}, x, use_reentrant=False)", c,
    )  # fmt: skip


def recurrent(n: str, c: int, r: Random) -> Block:
    """A convolutional LSTM's cell, two steps."""
    start = r.choice(["x.new_zeros(x.size(0), 8, 8, 8)", f"self.{n}_s(x)"])
    parts = r.choice(["chunk(4, 1)", "split(8, 1)", "unflatten(1, (4, -1)).unbind(1)"])
    return Block(
        f"self.{n}, self.{n}_s, self.{n}_c = block({c}, {c}), conv({c}, 8, 1), Cell{n}({c})",
        f"y = self.{n}(x)\nh = s = {start}\n"
        f"for _ in range(2):\n    h, s = self.{n}_c(y, h, s)\n"
        "x = h", 8,
        f"""
class Cell{n}(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gates = conv(c + 8, 32)
    def forward(self, y, h, s):
        i, f, o, g = self.gates(torch.cat([y, h], 1)).{parts}
        s = f.sigmoid() * s + i.sigmoid() * g.tanh()
        return o.sigmoid() * s.tanh(), s
""",
    )  # fmt: skip


def scripted(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = nn.Conv2d({c}, {c}, 1)", f"x = self.{n}(x)", c,
        after=f"net.{n} = torch.jit.trace(net.{n}, torch.ones(1, {c}, 8, 8).double())",
    )  # fmt: skip


BLOCKS = [
    grid_cache, buffer_cache, kept_features, forward_counter, hook, hook_over_self,
    hook_runs_another, replaced_forward, replaced_class, parent, functions_kept, by_mode,
    functional_dropout, frozen_norm, mixed_dtypes, one_dimension, three_dimensions,
    mixing_positions, attention, between_modules, checkpointed, recurrent, scripted,
]  # fmt: skip
