"""Curves are in percent, over one axis of epochs that continues from stage to stage."""

from prunebench.tracking.curves import Curves

ROW = {"epochs": 2, "lr": 0.1, "loss": 2.0, "correct": 1, "seen": 4, "seconds": 3.0}


def test_stages_share_one_axis():
    curves = Curves()
    first = curves.values({**ROW, "stage": "baseline", "epoch": 1, "val_correct": 1, "val_seen": 2})
    assert first == {
        "epoch": 1, "train/top1": 25.0, "train/loss": 2.0, "val/top1": 50.0, "lr": 0.1,
        "baseline/train_top1": 25.0, "baseline/train_loss": 2.0, "baseline/val_top1": 50.0,
        "baseline/lr": 0.1, "baseline/epoch": 1, "baseline/seconds": 3.0,
    }  # fmt: skip
    measured = curves.values({"stage": "pruned", "params": 7, "test/top1": 5.0})
    assert measured == {"epoch": 1, "pruned/params": 7, "pruned/test_top1": 5.0, "test/top1": 5.0}
    best = curves.values({"stage": "finetuned_best_val", "test/top1": 6.0})
    assert best == {"epoch": 1, "finetuned_best_val/test_top1": 6.0}  # the run ends with its last
    last = curves.values({**ROW, "stage": "finetune", "epoch": 1, "val_correct": 0, "val_seen": 0})
    assert (last["epoch"], last["finetune/epoch"]) == (2, 1)
    assert "val/top1" not in last  # there are no validation images


def test_what_is_no_number_has_no_curve():
    row = {"stage": "selection", "epoch": 1, "zeroed": {"conv1": 3}, "met": True, "macs allowed": 5}
    assert Curves().values(row) == {"epoch": 0, "selection/epoch": 1, "selection/macs allowed": 5}
