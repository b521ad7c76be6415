"""Fragments that use weights in an unusual way, or numbers that the code keeps itself."""

from __future__ import annotations

from random import Random

from drawn.block import Block, wider


def shared_module(n: str, c: int, r: Random) -> Block:
    return Block(f"self.{n} = conv({c}, {c})", f"x = F.relu(self.{n}(F.relu(self.{n}(x))))", c)


def shared_weight(n: str, c: int, r: Random) -> Block:
    g = r.choice(["1", str(c)])
    return Block(
        f"self.{n}_a, self.{n}_b = conv({c}, {c}, g={g}), conv({c}, {c}, g={g})\n"
        f"self.{n}_b.dilation = self.{n}_b.padding = (2, 2)\n"
        f"self.{n}_b.weight = self.{n}_a.weight",
        f"x = F.relu(self.{n}_a(x) + self.{n}_b(x))", c,
    )  # fmt: skip


def flipped(n: str, c: int, r: Random) -> Block:
    dims = r.choice(["(2, 3)", "(0,)", "(1,)"])
    return Block(
        f"self.{n} = conv({c}, {c})",
        f"x = F.relu(self.{n}(x) + F.conv2d(x, self.{n}.weight.flip({dims}), padding=1))", c,
    )  # fmt: skip


def weight_as_data(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        f"x * self.{n}.weight.mean((1, 2, 3)).view(1, -1, 1, 1)",
        f"x + self.{n}.weight.norm()",
        f"x * self.{n}.weight[0, 0, 0, 0]",
        f"x + (x.mean((2, 3)) * self.{n}.weight.mean((1, 2, 3))).sum(1)[:, None, None, None]",
    ])  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"x = F.relu(self.{n}(x))\nx = {code}", c)


def tied_transpose(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    return Block(
        f"self.{n} = conv({c}, {w})",
        f"y = F.relu(self.{n}(x))\nx = F.conv_transpose2d(y, self.{n}.weight, padding=1)", c,
    )  # fmt: skip


def tied_linear(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    code = r.choice(["t()", "T", "transpose(0, 1)"])
    return Block(
        f"self.{n} = nn.Linear({c}, {w})",
        "y = x.flatten(2).transpose(1, 2)\n"
        f"y = F.linear(F.relu(self.{n}(y)), self.{n}.weight.{code})\n"
        "x = y.transpose(1, 2).unflatten(2, (8, 8))", c,
    )  # fmt: skip


def standardised(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = WS{n}({c}, {c}, 3, padding=1)", f"x = F.relu(self.{n}(x))", c,
        f"""
class WS{n}(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)
""",
    )  # fmt: skip


def masked_data(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        "self.weight.data *= self.mask", "self.weight.data.mul_(self.mask)",
        "self.weight.data = self.weight.data * self.mask",
    ])  # fmt: skip
    return Block(
        f"self.{n} = Masked{n}({c}, {c}, 3, padding=1)", f"x = F.relu(self.{n}(x))", c,
        f"""
class Masked{n}(nn.Conv2d):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.mask[:, :, 1, 2:] = 0
    def forward(self, x):
        {code}
        return super().forward(x)
""",
    )  # fmt: skip


def weight_norm(n: str, c: int, r: Random) -> Block:
    w, dim = wider(c, r), r.choice(["0", "0", "1", "2", "None"])
    layer, w = r.choice([
        (f"conv({c}, {w})", w), (f"conv({c}, {c}, g={c})", c), (f"conv({c}, {w}, g=2)", w),
        (f"nn.ConvTranspose2d({c}, {w}, 3, padding=1)", w),
    ])  # fmt: skip
    norm, more = r.choice([  # the oracle takes the parametrization away
        ("parametrizations", ""), ("nn.utils", ""), ("nn.utils", f" * self.{n}.weight.abs().mean()")
    ])  # fmt: skip
    return Block(
        f"self.{n} = {norm}.weight_norm({layer}, dim={dim})", f"x = F.relu(self.{n}(x)){more}", w
    )


def spectral_norm(n: str, c: int, r: Random) -> Block:
    w, old = wider(c, r), r.choice(["parametrizations", "nn.utils"])
    return Block(f"self.{n} = {old}.spectral_norm(conv({c}, {w}))", f"x = F.relu(self.{n}(x))", w)


def own_layer_norm(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_norm = conv({c}, {c}), Norm{n}({c})",
        f"x = F.relu(self.{n}_norm(self.{n}(x)))", c,
        f"""
class Norm{n}(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.normalized_shape = (c,)
    def forward(self, x):
        u = x.mean(1, keepdim=True)
        x = (x - u) / torch.sqrt((x - u).pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]
""",
    )  # fmt: skip


def functional_layer_norm(n: str, c: int, r: Random) -> Block:
    shape = r.choice(["self.normalized_shape", f"({c},)", "x.shape[-1:]"])
    return Block(
        f"self.{n}, self.{n}_norm = conv({c}, {c}), Norm{n}({c})",
        f"x = self.{n}_norm(self.{n}(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)", c,
        f"""
class Norm{n}(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.normalized_shape = (c,)
    def forward(self, x):
        return F.layer_norm(x, {shape}, self.weight, self.bias, 1e-6)
""",
    )  # fmt: skip


def norms(n: str, c: int, r: Random) -> Block:
    norm = r.choice([
        f"nn.GroupNorm(2, {c})", f"nn.GroupNorm({c}, {c})", f"nn.InstanceNorm2d({c})",
        f"nn.InstanceNorm2d({c}, affine=True)", f"nn.GroupNorm(1, {c})",
        f"nn.BatchNorm2d({c}, affine=False)",
    ])  # fmt: skip
    return Block(
        f"self.{n} = nn.Sequential(conv({c}, {c}), {norm}, nn.ReLU())", f"x = self.{n}(x)", c
    )


def layer_norm(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_b = nn.LayerNorm({c}), "
        f"nn.Sequential(nn.Linear({c}, 16), nn.GELU(), nn.Linear(16, {c}))",
        "y = x.flatten(2).transpose(1, 2)\n"
        f"y = y + self.{n}_b(self.{n}(y))\n"
        "x = y.transpose(1, 2).unflatten(2, (8, 8))", c,
    )  # fmt: skip


def count_as_number(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        "x / x.size(1)", "x * x.shape[1] ** -0.5", "x + torch.full_like(x, x.size(1))",
        "x * len(x[0])", f"x * (x.numel() / {c * 64})",
    ])  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"x = F.relu(self.{n}(x))\nx = {code}", c)


def made_by_count(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        "torch.linspace(0.5, 1, x.size(1), dtype=x.dtype).view(1, -1, 1, 1)",
        "(torch.arange(x.shape[1]) % 2).to(x.dtype)[:, None, None]",
        "torch.ones(x.size(1), 1, 1, dtype=x.dtype).cumsum(0)",
    ])  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"x = F.relu(self.{n}(x))\nx = x * {code}", c)


def kept_number(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        f"x = x.contiguous().view(x.size(0), self.{n}_c, -1).view(-1, self.{n}_c, 8, 8)",
        f"assert x.size(1) == self.{n}_c",
        f"x = x.reshape(x.size(0), 2, self.{n}_c // 2, 8, 8).flatten(1, 2)",
        f"x = x[:, : self.{n}_c]",
        f"if x.shape[1] != self.{n}_c:\n    raise ValueError('unexpected channels')",
    ])  # fmt: skip
    return Block(
        f"self.{n}, self.{n}_c = conv({c}, {c}), {c}", f"x = F.relu(self.{n}(x))\n{code}", c
    )


def kept_groups(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_c = conv({c}, {c}), {c}\n"
        f"self.{n}_w = nn.Parameter(torch.ones({c}, 1, 3, 3))",
        f"x = F.relu(self.{n}(x))\nx = F.conv2d(x, self.{n}_w, padding=1, groups=self.{n}_c)", c,
    )  # fmt: skip


def layer_scale(n: str, c: int, r: Random) -> Block:
    where = r.choice([("(1, {}, 1, 1)", ""), ("({})", ".view(1, -1, 1, 1)"), ("({}, 1, 1)", "")])
    return Block(
        f"self.{n}, self.{n}_g = conv({c}, {c}), nn.Parameter(torch.ones{where[0].format(c)})",
        f"x = x + self.{n}_g{where[1]} * self.{n}(x)", c,
    )  # fmt: skip


def squeeze_excite(n: str, c: int, r: Random) -> Block:
    gate = r.choice(["torch.sigmoid", "F.hardsigmoid", "torch.tanh", "F.relu6"])
    return Block(
        f"self.{n}, self.{n}_d, self.{n}_u = block({c}, {c}), conv({c}, 4, 1), conv(4, {c}, 1)",
        f"x = self.{n}(x)\ny = F.adaptive_avg_pool2d(x, 1)\n"
        f"x = x * {gate}(self.{n}_u(F.relu(self.{n}_d(y))))", c,
    )  # fmt: skip


def eca(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_e = block({c}, {c}), nn.Conv1d(1, 1, 3, padding=1)",
        f"x = self.{n}(x)\ny = self.{n}_e(x.mean((2, 3)).unsqueeze(1)).squeeze(1)\n"
        "x = x * torch.sigmoid(y)[..., None, None]", c,
    )  # fmt: skip


def positions(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_p = block({c}, {c}), nn.Parameter(torch.zeros(1, {c}, 8, 8))",
        f"x = self.{n}(x) + self.{n}_p", c,
    )  # fmt: skip


def positions_then_gate(n: str, c: int, r: Random) -> Block:
    first, gate = positions(n, c, r), squeeze_excite(n + "g", c, r)
    skip = gate.forward.split("\n", 1)[1]  # the gate sits right on the positions
    return Block(f"{first.init}\n{gate.init}", f"{first.forward}\n{skip}", c)


BLOCKS = [
    shared_module, shared_weight, flipped, weight_as_data, tied_transpose, tied_linear,
    standardised, masked_data, weight_norm, spectral_norm, own_layer_norm, functional_layer_norm,
    norms, layer_norm, count_as_number, made_by_count, kept_number, kept_groups, layer_scale,
    squeeze_excite, eca, positions, positions_then_gate,
]  # fmt: skip
