"""Writes a network as one readable file of plain torch.

Begin with `source_code`. `classes` writes the modules as classes and the expression that builds
them, `forwards` their forward methods, `constructors` the calls that make torch's layers.
"""

from __future__ import annotations

from torch import nn

from prunebench.export.code.classes import Classes


def source_code(network: nn.Module, about: str) -> str:
    """Returns Python code that rebuilds `network`; its weights are read from a file beside it.

    Args:
        network: in eval mode.
        about: plain text for the file's docstring.

    Raises:
        ConfigError: the network needs more than torch.
    """
    classes = Classes()
    made = classes.make(network)
    lines = made.lines("return ", "", 4)
    body = "\n\n\n".join(text.rstrip("\n") for text in classes.texts)
    ordered = "from collections import OrderedDict\n" if "OrderedDict" in str(made) else ""
    maths = "import math\n" if "math." in body else ""
    functional = "from torch.nn import functional\n" if "functional." in body else ""
    return (
        f'"""{about}"""\n\n{maths}{ordered}from pathlib import Path\n\nimport torch\n'
        f"from safetensors.torch import load_file\nfrom torch import nn\n{functional}\n\n"
        f"{body}\n\n\n{BUILD}{chr(10).join(lines)}\n\n\n{LOAD}"
    )


BUILD = '''def build():
    """Returns the network; its weights are drawn at random."""
'''
LOAD = '''def load(weights=Path(__file__).with_suffix(".safetensors")):
    """Returns the network with its weights, in eval mode."""
    network = build()
    network.load_state_dict(load_file(weights))
    return network.eval()
'''
