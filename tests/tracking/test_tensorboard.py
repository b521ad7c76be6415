"""TensorBoard gets the curves that W&B gets."""

import pytest

from prunebench.errors import ConfigError
from prunebench.tracking.tensorboard import TensorBoardTracker

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "budget=macs", "recipe=quick", "recipe.baseline.epochs=2",
    "recipe.finetune.epochs=1", "run.latency_batch=1", "tracker=tensorboard",
]  # fmt: skip


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_a_sweep_has_all_curves(prunebench, tmp_path):
    done = prunebench("-m", *TINY, "criterion=l1", "budget.keep=0.5,0.6")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tensorboard: tensorboard --logdir outputs/sweeps/") == 2
    folders = sorted((tmp_path / "outputs" / "sweeps").glob("*/*/tensorboard"))
    assert len(folders) == 2  # the second of which takes its baseline from the store
    for folder, keep in zip(folders, ("0.5", "0.6"), strict=True):
        found = read(folder)
        [run] = found.Tensors("run/text_summary")
        title = f"mlp_512_512-digits-l1 budget.keep={keep} seed=0\n"
        assert run.tensor_proto.string_val[0].startswith(title.encode())
        assert [event.step for event in found.Scalars("val/top1")] == [1, 2, 3]
        assert [event.step for event in found.Scalars("baseline/train_top1")] == [1, 2]
        assert len(found.Scalars("test/top1")) >= 3
        assert all(0 <= event.value <= 100 for event in found.Scalars("train/top1"))
        [removed] = found.Scalars("summary/macs_reduction_percent")
        assert removed.value == pytest.approx(100 * (1 - float(keep)), abs=3)
        [layers] = found.Tensors("layers/text_summary")
        assert b"| name | channels_before |" in layers.tensor_proto.string_val[0]


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("prunebench.tracking.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'prunebench\[tensorboard\]'"):
        TensorBoardTracker()
