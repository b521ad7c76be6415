"""torch's compiler, which is slow to import, is not imported unless a network was compiled."""

import subprocess
import sys

SCRIPT = """
import sys
import torch
from torch import nn
from prunebench.channels import Plan, slim, trace, verify
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
example = torch.zeros(1, 3, 8, 8)
cmap = trace(net, example)
plan = Plan({group.name: range(4) for group in cmap.groups})
slimmed = slim(net, cmap, plan)
assert slimmed[0].weight.shape[0] == 4
assert verify(net, slimmed, cmap, plan, example) < 1e-6
print("torch._dynamo" in sys.modules)
"""


def test_tracing_slimming_and_verifying_import_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout == "False\n"
