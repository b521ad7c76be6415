"""Fragments that surgery does not serve yet, with the kind of fault in issue 10's table.

A test asks of each entry that it still fails: what is mended is taken out here.
"""

KNOWN = {
    "dataclass": "A", "namespace": "A", "own_class": "A", "own_mapping": "A", "slots": "A",
    "generator": "A", "ghost": "B", "replaced_forward": "C", "parent": "C", "functions_kept": "C",
    "hook_runs_another": "C", "spectral_norm": "D", "masked_data": "D", "grid_cache": "D",
    "buffer_cache": "D", "kept_features": "D", "forward_counter": "D", "hook_over_self": "D",
    "shared_weight": "E", "functional_layer_norm": "E", "count_as_number": "E", "kept_number": "E",
    "kept_groups": "E", "positions_then_gate": "F", "tied_linear": "G", "unpool": "H",
    "inplace_slice": "I", "pair_of_inputs": "M", "two_images": "M", "dict_of_inputs": "M",
    "scripted": "N", "mixing_positions": "O", "norms": "P",
}  # fmt: skip
