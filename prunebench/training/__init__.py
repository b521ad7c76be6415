"""Trains networks: one loop for baselines, pruning during training, and fine-tuning.

Begin with `loop.train`, which takes a network, data, a `Phase` (how to train) and a `stage.Stage`
(where, and who observes). `state.Training` holds a training under way; `step` is one step of it.
On a GPU, `recorded` replays steps as CUDA graphs, `forward` merges their tiny operations, and
`aligned` pads channels. Data come from a `split.Split`, either `resident` on the device or
`streamed` from disk; `distributed` is all that the processes of one training exchange.
"""
