"""Fragments that surgery does not serve yet, by the kind of fault.

A test asks of each that it still fails: what is mended is taken out here.
"""

BY_KIND = {
    "forwards replaced on the object": "replaced_forward",
    "what a forward keeps": "buffer_cache hook_over_self",
}

KNOWN = {fragment: kind for kind, names in BY_KIND.items() for fragment in names.split()}
