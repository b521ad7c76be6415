"""Fragments that surgery does not serve yet, by the kind of fault in issue 10's table.

A test asks of each that it still fails: what is mended is taken out here.
"""

BY_KIND = {
    "A": "dataclass namespace own_class own_mapping slots generator",
    "B": "ghost",
    "C": "replaced_forward parent functions_kept hook_runs_another",
    "D": "spectral_norm masked_data grid_cache buffer_cache kept_features forward_counter "
    "hook_over_self",
    "E": "shared_weight functional_layer_norm count_as_number kept_number kept_groups",
    "F": "positions_then_gate",
    "G": "tied_linear tied_transpose flipped weight_as_data",
    "H": "unpool",
    "I": "inplace_slice",
    "M": "pair_of_inputs two_images dict_of_inputs",
    "N": "scripted",
    "O": "mixing_positions",
    "P": "norms two_operands across",
}

KNOWN = {fragment: kind for kind, names in BY_KIND.items() for fragment in names.split()}
