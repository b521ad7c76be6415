"""Fragments that surgery does not serve yet, by the kind of fault in issue 10's table.

A test asks of each that it still fails: what is mended is taken out here.
"""

BY_KIND = {
    "B": "ghost",
    "C": "replaced_forward",
    "D": "buffer_cache kept_features forward_counter hook_over_self",
    "E": "shared_weight functional_layer_norm count_as_number kept_number kept_groups",
    "G": "tied_linear flipped",
    "H": "unpool",
    "I": "inplace_slice",
    "M": "pair_of_inputs two_images dict_of_inputs",
}

KNOWN = {fragment: kind for kind, names in BY_KIND.items() for fragment in names.split()}
