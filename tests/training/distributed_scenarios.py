"""Runs the scenarios of `test_distributed.py` in each of two processes.

``python distributed_scenarios.py FOLDER RANK`` runs every scenario below as process RANK of 2 and
writes the results to ``FOLDER/RANK.pt``.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn, optim
from torch import distributed as dist
from torch.nn import functional

from prunebench.budgets import Budget
from prunebench.channels import trace
from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Assignment, Moment, Observer
from prunebench.criteria import TrainingCriterion
from prunebench.datasets import Arrays, Data, DatasetSpec
from prunebench.errors import DataError, TrainingError
from prunebench.models.resnet import Resnet
from prunebench.options import option
from prunebench.recipes import Phase
from prunebench.recipes.sparsity import Sparsity
from prunebench.run.step import dense_counts
from prunebench.training import distributed
from prunebench.training.heads import head_weight, headed, initial_weight
from prunebench.training.loop import train
from prunebench.training.stage import Stage, TrainResult

CPU = torch.device("cpu")
PHASE = Phase(
    epochs=2, batch_size=14, optimizer="sgd", lr=0.05, momentum=0.9, nesterov=False,
    weight_decay=1e-3, decay="weights", schedule="cosine", milestones=[], gamma=0.1,
    warmup_epochs=1.0, label_smoothing=0.1, precision="float32", channels_last=True,
)  # fmt: skip
#: 7 batches; the last one, of 7, gives the processes 4 and 3 images
IMAGES, STEPS = 91, 7
#: the image of which one process's loss is not finite
BAD = 40


class Killed(BaseException):
    """Stands for SIGKILL."""


def split(n: int) -> Arrays:
    source = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=source)
    return Arrays(images, torch.randint(0, 4, (n,), generator=source))


def data() -> Data:
    return Data(
        name="noise", train=split(IMAGES), val=split(1100), test=split(1), classes=4,
        mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=1, flip=True,
    )  # fmt: skip


def plain_network() -> nn.Module:
    """Without chance and without batch statistics: processes must make no difference."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip


def dropping_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(0.3), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip


def resnet() -> nn.Module:
    """Two of a ResNet's three blocks."""
    torch.manual_seed(0)
    network: Any = Resnet(depth=8, shortcut="A", width=0.5).build((3, 8, 8), 4)
    network.layer3, network.linear = nn.Identity(), nn.Linear(16, 4)
    return network


def stage(**changes: Any) -> Stage:
    return Stage(**{"name": "training", "seed": 7, "device": CPU, **changes})


def result(network: nn.Module, done: TrainResult) -> dict[str, Any]:
    return {
        "network": network.state_dict(),
        "history": [{**asdict(record), "seconds": 0} for record in done.history],
    }


class OwnLoss(Observer):
    """Compares every image's own derivative with `Moment.mean_over` times the gradient."""

    def __init__(self) -> None:
        self.errors: list[float] = []
        self.parts: list[int] = []

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        self.network, self.gates = network, None
        self.handle = network.register_forward_pre_hook(self._gate)

    def _gate(self, network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        self.images = inputs[0]
        self.gates = torch.ones(len(inputs[0]), 1, 1, 1, requires_grad=network.training)
        return (inputs[0] * self.gates,)

    def after_backward(self, moment: Moment) -> None:
        found = self.gates.grad * moment.mean_over
        logits = self.network(self.images)
        each = functional.cross_entropy(
            logits, moment.labels, reduction="sum", label_smoothing=PHASE.label_smoothing
        )
        (own,) = torch.autograd.grad(each, self.gates)
        self.errors.append(float((found - own).abs().max()))
        self.parts.append(len(moment.labels))

    def finished(self) -> None:
        self.handle.remove()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError(state)


def without_batch_statistics(folder: Path) -> dict[str, Any]:
    network, watching = plain_network(), OwnLoss()
    done = train(network, data(), PHASE, stage(observers=[watching]))
    return {**result(network, done), "errors": watching.errors, "parts": watching.parts}


def with_dropout_and_norms(folder: Path) -> dict[str, Any]:
    if distributed.rank():  # process 0's weights are those that count
        torch.manual_seed(99)
    network = dropping_network()
    if distributed.rank():
        for value in network.state_dict().values():
            value.add_(1)
    dropped, means = [], []

    def watch(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if module.training:
            dropped.append(output == 0)
            means.append(inputs[0].detach().mean((0, 2, 3)))

    network[0].register_forward_hook(watch)
    hinge = replace(PHASE, gamma_hinge=0.1, hinge_share=0.5)
    penalties = Sparsity(hinge, data().shape)
    done = train(network, data(), hinge, stage(observers=[penalties]))
    return {**result(network, done), "dropped": dropped[0], "mean": means[0]}


#: for networks that end in an embedding
MARGIN = replace(PHASE, head="cosface")
SYNCED = replace(PHASE, sync_batchnorm=True, ema=0.5)


def normed_network() -> nn.Module:
    """With batch statistics, over maps and over plain rows, and without chance."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, momentum=None), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 4),
    )  # fmt: skip


def synchronised_norms(folder: Path) -> dict[str, Any]:
    network = normed_network()
    done = train(network, data(), SYNCED, stage())
    assert not [name for module in network.modules() for name in vars(module) if name == "forward"]
    parts = normed_network()  # 4 and 3 images are two parts and one
    train(parts, data(), replace(SYNCED, accumulate=2), stage())
    return {**result(network, done), "in_parts": parts.state_dict()}


def work(network: nn.Module, budget: Any, rows: list[Mapping[str, Any]]) -> Assignment:
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    return Assignment(
        cmap=cmap, groups=budget.select(cmap), limits=budget.limits(cmap, dense_counts(cmap)),
        floors=budget.floors(cmap), seed=7, epochs=PHASE.epochs, steps=STEPS, images=IMAGES,
        log=rows.append,
    )  # fmt: skip


def aofp(network: nn.Module, rows: list[Mapping[str, Any]], **changes: Any) -> Any:
    options = {"draws_per_half": 4, "warmup_steps": 2, "draws_per_step": 2, "theta": 0.2, **changes}
    criterion = option("criterion", "aofp", TrainingCriterion, **options)
    return criterion.observer(work(network, option("budget", "own", Budget), rows))


def scored_halves(estimator: str) -> Callable[[Path], dict[str, Any]]:
    def scenario(folder: Path) -> dict[str, Any]:
        own: list[Tensor] = []
        gather = distributed.rows_of_all

        def watched(tensor: Tensor) -> Tensor:
            own.append(tensor.clone())
            return gather(tensor)

        network, rows = resnet(), []
        watching = aofp(network, rows, estimator=estimator, confirm=1, gram_batches=2)
        distributed.rows_of_all = watched
        done = train(network, data(), PHASE, stage(observers=[watching]))
        distributed.rows_of_all = gather
        return {
            **result(network, done),
            "own": own,
            "alive": [search.alive for search in watching.searches],
            "rows": [{key: v for key, v in row.items() if key != "seconds"} for row in rows],
            "plan": watching.plan().to_json(),
        }

    return scenario


def removals(folder: Path) -> dict[str, Any]:
    network, rows, asked = resnet(), [], []
    criterion = option(
        "criterion", "cac", TrainingCriterion,
        n_min=2, start=0.2, end=0.8, prune_every=2, max_step=0.2, ema_epochs=1.0,
    )  # fmt: skip
    watching = criterion.observer(work(network, option("budget", "macs", Budget, keep=0.5), rows))
    remove = watching._remove

    def watched(step: int) -> None:
        sums = {name: value.clone() for name, value in watching.estimator.sums.items()}
        scores, seen = watching.estimator.scores()
        asked.append({"sums": sums, "scores": scores, "seen": seen})
        remove(step)

    watching._remove = watched
    done = train(network, data(), PHASE, stage(observers=[watching]))
    return {
        **result(network, done), "asked": asked, "rows": rows, "plan": watching.plan().to_json()
    }  # fmt: skip


def killed_in_mid_half(folder: Path) -> dict[str, Any]:
    found = {}
    for name, deaths in {"whole": [], "resumed": [3, 12]}.items():
        at = folder / f"{name}.pt"
        for after in [*deaths, None]:
            network, calls = resnet(), 0
            watching = aofp(network, [], warmup_steps=1)

            def kill(moment: Moment, last: int | None = after) -> None:
                nonlocal calls
                calls += 1
                if calls == last:
                    raise Killed

            watching.after_backward = kill
            checkpoint = None if distributed.rank() else Checkpoint(at, 0.0)
            try:
                done = train(
                    network, data(), PHASE, stage(observers=[watching], checkpoint=checkpoint)
                )
            except Killed:
                continue
            found[name] = {**result(network, done), "plan": watching.plan().to_json()}
            found[name]["damages"] = [
                search.state_dict()["damages"] for search in watching.searches
            ]
    return found


class Pitfall(nn.Module):
    """Gives nan for a white image."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.where(x.amin((1, 2, 3), keepdim=True) > 1.9, torch.nan, 0.0)


def a_loss_that_is_not_finite(folder: Path) -> dict[str, Any]:
    noise = data()
    noise.train.images[BAD] = 255
    calm = replace(noise, crop_padding=0)
    try:
        train(nn.Sequential(Pitfall(), plain_network()), calm, PHASE, stage())
    except TrainingError as error:
        return {"message": str(error)}
    return {"message": "none"}


def faces_with_a_head(folder: Path) -> dict[str, Any]:
    whole = headed_network()
    done = train(whole, data(), MARGIN, stage())
    return {**result(whole, done), "head": head_weight(whole)}


def headed_network() -> nn.Module:
    return headed(plain_network(), initial_weight(4, 4, seed=3), MARGIN)


#: of 40 training images, in the order of their names, and the places of the damaged ones
TREE, DAMAGED = 40, (0, 7, 22)


def photographs(root: Path, allowed: float) -> Data:
    """Two classes of small files, some of them damaged."""
    for number in range(TREE):
        path = root / "train" / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        if number in DAMAGED:
            path.write_bytes(path.read_bytes()[:20])
    values = {"path": str(root), "image_size": 8, "workers": 0, "val_size": 0, "test_size": 0}
    return (
        option("dataset", "folder", DatasetSpec, **values, allow_damaged=allowed)
        .suited(None)
        .load()
    )


def damaged_images(folder: Path) -> dict[str, Any]:
    place = folder / f"tree{distributed.rank()}" / "tree"
    photos = photographs(place, allowed=3 / TREE)
    network = plain_network()
    done = train(network, photos, PHASE, stage())
    few, error = photographs(place, allowed=2 / TREE), ""
    try:
        train(plain_network(), few, PHASE, stage())
    except DataError as caught:
        error = str(caught)
    return {**result(network, done), "found": {*photos.damaged.found}, "error": error}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "plain": without_batch_statistics,
    "norms": with_dropout_and_norms,
    "synced": synchronised_norms,
    "mean": scored_halves("mean"),
    "gram": scored_halves("gram"),
    "cac": removals,
    "killed": killed_in_mid_half,
    "head": faces_with_a_head,
    "damaged": damaged_images,
    "bad": a_loss_that_is_not_finite,
}


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    with distributed.joined(rank, 2, dist.FileStore(str(folder / "store"), 2)):
        found = {name: scenario(folder) for name, scenario in SCENARIOS.items()}
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
