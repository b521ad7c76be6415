"""Measurements of a network that criteria and repairs share; nothing here is an option.

Batch norms: `norm_wiring` (what lies around them), `dead_channels`, `constants`, `clipped_normal`.
ThiNet's Gram matrices: `gram`, `consumer_gram`. Weights: `filters`. Feature maps: `similarity`.
Forwards: `calls` (what reads what), `beginning` (shared beginnings), `chunks` (images at once).
"""
