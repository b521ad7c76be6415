"""Shows how far many runs have come, and the commands that complete them; never imports torch.

`plans` reads which jobs were asked for, `progress` how far each has come; `status` prints both.
"""
