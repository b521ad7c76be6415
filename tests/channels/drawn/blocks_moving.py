"""Fragments that move, split, join or mix channels."""

from __future__ import annotations

from random import Random

from drawn.block import Block, wider


def plain(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    return Block(f"self.{n} = block({c}, {w})", f"x = self.{n}(x)", w)


def residual(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    return Block(
        f"self.{n} = nn.Sequential(block({c}, {w}), conv({w}, {c}))",
        f"x = F.relu(x + self.{n}(x))", c,
    )  # fmt: skip


def projected(n: str, c: int, r: Random) -> Block:
    w = wider(c, r)
    return Block(
        f"self.{n}, self.{n}_short = block({c}, {w}), conv({c}, {w}, 1)",
        f"x = F.relu(self.{n}(x) + self.{n}_short(x))", w,
    )  # fmt: skip


def grouped(n: str, c: int, r: Random) -> Block:
    g = r.choice([2, 4])
    return Block(f"self.{n} = block({c}, {2 * c}, g={g})", f"x = self.{n}(x)", 2 * c)


def depthwise(n: str, c: int, r: Random) -> Block:
    times = r.choice([1, 2])
    return Block(
        f"self.{n} = nn.Sequential(block({c}, {times * c}, g={c}), block({times * c}, {c}, 1))",
        f"x = self.{n}(x)", c,
    )  # fmt: skip


def dense_concat(n: str, c: int, r: Random) -> Block:
    return Block(f"self.{n} = block({c}, 8)", f"x = torch.cat([x, self.{n}(x)], 1)", c + 8)


def ghost(n: str, c: int, r: Random) -> Block:
    odd = 2 * c - r.choice([0, 3])
    return Block(
        f"self.{n}_a, self.{n}_cheap = block({c}, {c}), block({c}, {c}, g={c})\n"
        f"self.{n}_b = block({odd}, {c}, 1)",
        f"y = self.{n}_a(x)\n"
        f"y = torch.cat([y, self.{n}_cheap(y)], dim=1)[:, :{odd}]\n"
        f"x = self.{n}_b(y)", c,
    )  # fmt: skip


def crelu(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = block({2 * c}, {c})",
        f"x = self.{n}(F.relu(torch.cat([x, {r.choice(['-x', 'x.neg()', '-1.5 * x'])}], 1)))", c,
    )  # fmt: skip


def cat_twice(n: str, c: int, r: Random) -> Block:
    second = r.choice(
        ["x.sigmoid()", "F.max_pool2d(x, 3, 1, 1)", "x * x", "F.avg_pool2d(x, 3, 1, 1)"]
    )
    return Block(f"self.{n} = conv({2 * c}, 12)", f"x = self.{n}(torch.cat((x, {second}), 1))", 12)


def gsconv(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}_a, self.{n}_b = block({c}, {c}, 1), block({c}, {c}, g={c})",
        f"y = self.{n}_a(x)\n"
        f"y = torch.cat((y, self.{n}_b(y)), 1)\n"
        f"y = y.reshape(y.size(0), 2, y.size(1) // 2, 8, 8)\n"
        f"x = y.permute(0, 2, 1, 3, 4).reshape(y.size(0), -1, 8, 8)", 2 * c,
    )  # fmt: skip


def shuffle(n: str, c: int, r: Random) -> Block:
    g = r.choice([2, 4])
    return Block(
        f"self.{n}_a, self.{n}_b = block({c}, {c}, g={g}), conv({c}, {c}, g={g})",
        f"x = self.{n}_a(x)\n"
        "b, c, h, w = x.shape\n"
        f"x = x.contiguous().view(b, {g}, c // {g}, h, w).transpose(1, 2).reshape(b, c, h, w)\n"
        f"x = F.relu(self.{n}_b(x))", c,
    )  # fmt: skip


def c2f(n: str, c: int, r: Random) -> Block:
    h, deep = wider(c, r) // 2, r.choice([1, 2])
    return Block(
        f"self.{n}_1 = block({c}, {2 * h}, 1)\n"
        f"self.{n}_m = nn.ModuleList(nn.Sequential(block({h}, {h}), block({h}, {h})) "
        f"for _ in range({deep}))\n"
        f"self.{n}_2 = block({(2 + deep) * h}, {c}, 1)",
        f"y = list(self.{n}_1(x).chunk(2, 1))\n"
        f"y.extend(m(y[-1]) for m in self.{n}_m)\n"
        f"x = self.{n}_2(torch.cat(y, 1))", c,
    )  # fmt: skip


def split(n: str, c: int, r: Random) -> Block:
    k = r.choice([2, 3, c // 2])
    return Block(
        f"self.{n} = block({k}, {k})",
        f"left, right = x.split([{k}, {c - k}], dim=1)\n"
        f"x = torch.cat([right, self.{n}(left)], 1)", c,
    )  # fmt: skip


def glu(n: str, c: int, r: Random) -> Block:
    code = r.choice(["a * torch.sigmoid(b)", "torch.tanh(a) * b", "a - b"])
    return Block(
        f"self.{n} = conv({c}, {2 * c})", f"a, b = self.{n}(x).chunk(2, dim=1)\nx = {code}", c
    )


def swapped(n: str, c: int, r: Random) -> Block:
    code = r.choice(
        ["x.flip(1)", "x.roll(3, 1)", f"x[:, {[*range(c - 1, -1, -2), *range(0, c, 2)]}]"]
    )
    return Block(f"self.{n} = conv({c}, {c})", f"x = F.relu(self.{n}(x))\nx = {code}", c)


def padded(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        "F.pad(x, (0, 0, 0, 0, 2, 2))", "torch.cat([x, x.new_zeros(x.size(0), 4, 8, 8)], 1)",
    ])  # fmt: skip
    return Block(f"self.{n} = block({c}, {c + 4})", f"x = F.relu(self.{n}(x) + {code})", c + 4)


def pixels(n: str, c: int, r: Random) -> Block:
    between = r.choice(["x", "F.relu6(x) - 0.1", "F.avg_pool2d(x, 3, 1, 1)", f"self.{n}_d(x)"])
    then = r.choice(["x", "torch.cat([x, y], 1)", "x + y", "torch.cat(x.chunk(2, 1)[::-1], 1)"])
    return r.choice([
        Block(
            f"self.{n}_a, self.{n}_b = block({c}, {2 * c}), block({8 * c}, {c}, 1)",
            f"x = self.{n}_b(F.pixel_unshuffle(self.{n}_a(x), 2))\n"
            "x = F.interpolate(x, scale_factor=2)", c,
        ),
        Block(
            f"self.{n} = block({c}, 16)",
            f"x = F.max_pool2d(F.pixel_shuffle(self.{n}(x), 2), 2)", 4,
        ),
        Block(
            f"self.{n}, self.{n}_d = block({c}, 16), conv(4, 4, 3, 4)",
            f"y = self.{n}(x)\nx = F.pixel_shuffle(y, 2)\nx = F.pixel_unshuffle({between}, 2)\n"
            f"x = {then}", 32 if "cat([" in then else 16,
        ),
    ])  # fmt: skip


def unpool(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n} = block({c}, {c})",
        "x, where = F.max_pool2d(x, 2, return_indices=True)\n"
        f"x = F.max_unpool2d(self.{n}(x), where, 2)", c,
    )  # fmt: skip


def inplace_slice(n: str, c: int, r: Random) -> Block:
    k = r.choice([2, 3, c // 2])
    code = r.choice([
        f"x[:, :{k}].mul_(2)", f"F.relu_(x[:, {k}:])", f"x.narrow(1, 0, {k}).add_(1.5)",
        f"x[:, :{k}] += 1", f"x[:, {k}:].zero_()",
    ])  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"x = self.{n}(x)\n{code}", c)


def set_slice(n: str, c: int, r: Random) -> Block:
    k = r.choice([2, 3, c // 2])
    code = r.choice([f"x[:, :{k}] = 0", f"x[:, {k}:] = x[:, {k}:] * 2", "x[:, ::2] = y[:, 1::2]"])
    return Block(f"self.{n} = conv({c}, {c})", f"y, x = x, self.{n}(x)\n{code}", c)


def across(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        "x * torch.sigmoid(x.mean(1, keepdim=True))", "x.softmax(1)", "x - x.amax(1, keepdim=True)",
        "x.cumsum(1)", "x / x.norm(dim=1, keepdim=True).add(1)", "x.sort(1).values",
    ])  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"x = {code}\nx = F.relu(self.{n}(x))", c)


def spatial_attention(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_a = conv(2, 1), block({c}, {c})",
        "y = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)\n"
        f"x = self.{n}_a(x * torch.sigmoid(self.{n}(y)))", c,
    )  # fmt: skip


def split_attention(n: str, c: int, r: Random) -> Block:
    return Block(
        f"self.{n}, self.{n}_f = block({c}, {2 * c}), nn.Linear({c}, {2 * c})",
        f"y = self.{n}(x).contiguous().view(x.size(0), 2, -1, 8, 8)\n"
        f"z = self.{n}_f(y.sum(1).mean((2, 3))).view(x.size(0), 2, -1).softmax(1)\n"
        "x = (y * z[..., None, None]).sum(1)", c,
    )  # fmt: skip


def two_operands(n: str, c: int, r: Random) -> Block:
    code = r.choice([
        "torch.max(x, other=y)", "torch.maximum(x, y)", "torch.where(x > y, x, 0 * y)",
        "torch.stack([x, y]).sum(0)", "torch.lerp(x, y, 0.3)", "torch.addcmul(x, x, y)",
        "sum([x, y])", "torch.hypot(x, y)",
    ])  # fmt: skip
    return Block(f"self.{n} = conv({c}, {c})", f"y = self.{n}(x)\nx = {code}", c)


BLOCKS = [
    plain, residual, projected, grouped, depthwise, dense_concat, ghost, crelu, cat_twice, gsconv,
    shuffle, c2f, split, glu, swapped, padded, pixels, unpool, inplace_slice, set_slice, across,
    spatial_attention, split_attention, two_operands,
]  # fmt: skip
