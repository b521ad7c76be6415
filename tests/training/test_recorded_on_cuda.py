"""Steps as CUDA graphs: what ``test_recorded.py`` cannot show on a CPU. For ``pytest -m gpu``."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunebench.errors import TrainingError
from prunebench.recipes import Phase
from prunebench.recipes.sparsity import Sparsity
from prunebench.reproducibility import cuda_math
from prunebench.tracking.progress import Progress
from prunebench.training.aligned import align
from prunebench.training.forward import Forward
from prunebench.training.loop import train
from prunebench.training.recorded import WARM_UP, WARM_UP_LATER, Replays
from prunebench.training.recorder import recorder_of
from prunebench.training.stage import TrainResult
from tests.criteria.aofp import test_observer as aofp
from tests.criteria.cac import test_observer as cac
from tests.training.test_aligned import Mixed
from tests.training.test_forward import built
from tests.training.test_loop import PHASE, Killed, Shrinker, data, network, stage
from tests.training.test_recorded import Asks, KilledAfter, Poison

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
#: 13 epochs of 4 steps, the last of 6 images: the first shape is recorded after its third step
LONG = replace(PHASE, epochs=13, lr=0.01)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TensorFloat-32 and no timed choice of algorithms, which may differ from run to run."""
    monkeypatch.setattr("prunebench.training.loop.cuda_math", lambda **_: cuda_math(exact=True))


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The keys of all work that was replayed or recorded."""
    keys: list[object] = []
    do = Replays.do

    def counted(self: Replays, key: Any, *work: Any) -> None:
        do(self, key, *work)
        if not isinstance(self._known.get(key, 0), int):
            keys.append(key)

    monkeypatch.setattr(Replays, "do", counted)
    return keys


def trained(
    phase: Phase, compiled: str, net: nn.Module | None = None, **changes: Any
) -> tuple[nn.Module, TrainResult]:
    net = network() if net is None else net
    recorder = recorder_of(CUDA, compiled)
    return net, train(net, data(), phase, stage(device=CUDA, recorder=recorder, **changes))


def assert_alike(
    ours: tuple[nn.Module, TrainResult], theirs: tuple[nn.Module, TrainResult], rel: float
) -> None:
    for mine, other in zip(ours[1].history, theirs[1].history, strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=rel)
        assert mine.lr == other.lr
        assert abs(mine.val_correct - other.val_correct) <= (rel > 1e-4)
    for name, weight in ours[0].state_dict().items():
        other_weight = theirs[0].state_dict()[name]
        assert torch.allclose(weight.float(), other_weight.float(), atol=10 * rel), name


@pytest.mark.parametrize(
    ("changes", "rel"),
    [
        ({}, 1e-4),
        ({"channels_last": False, "accumulate": 2}, 1e-4),
        ({"optimizer": "adamw", "nesterov": False, "ema": 0.9, "lr": 1e-3}, 1e-4),
        ({"precision": "bf16"}, 2e-2),
    ],
)
def test_recorded_steps_learn_what_unrecorded_ones_do(
    changes: dict[str, Any], rel: float, replays: list[object]
) -> None:
    phase = replace(LONG, **changes)
    recorded = trained(phase, "on")
    assert replays.count((8,)) == 13 * 3 - WARM_UP
    assert replays.count((6,)) == 13 - WARM_UP_LATER
    assert replays.count(("val", (12,))) == 13 - WARM_UP_LATER
    assert_alike(recorded, trained(phase, "off"), rel)


def test_recorded_penalties_push_as_unrecorded_ones_do(replays: list[object]) -> None:
    phase = replace(LONG, gamma_l1=0.01, gamma_hinge=0.02, hinge_share=0.5)
    recorded = trained(phase, "on", observers=[Sparsity(phase, (3, 8, 8))])
    assert {(8, False), (8, True)} <= set(replays)
    assert_alike(recorded, trained(phase, "off", observers=[Sparsity(phase, (3, 8, 8))]), 1e-4)


def test_the_forward_of_a_step_is_the_networks_own() -> None:
    images = torch.randn(4, 3, 6, 6, device=CUDA).contiguous(memory_format=torch.channels_last)
    found = []
    for together in (False, True):
        net = built().to(CUDA)
        call = Forward(net, torch.bfloat16) if together else net
        torch.manual_seed(0)
        for _ in range(2):  # the first call is the network's own in any case
            with torch.autocast("cuda", torch.bfloat16), cuda_math(exact=True):
                call(images).float().square().sum().backward()
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        found.append([*net.state_dict().values(), *grads])
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(theirs, ours, rtol=1e-2, atol=1e-3)


def test_channels_in_eights_learn_what_others_do(replays: list[object]) -> None:
    phase, ended = replace(LONG, precision="bf16"), []
    found = align(Mixed().to(CUDA), torch.randn(8, 3, 32, 32, device=CUDA))
    assert found.images == 8 and len(found.shapes) > 10
    for compiled in ("on", "off"):  # where nothing is recorded, nothing is aligned
        torch.manual_seed(0)
        ended.append(trained(phase, compiled, Mixed()))
    assert replays
    assert_alike(*ended, 2e-2)


@pytest.mark.parametrize("theta", [0.0, 0.35])
def test_steps_that_aofp_scores_are_replayed(theta: float, replays: list[object]) -> None:
    phase = replace(aofp.PHASE, epochs=16)  # of five full batches and a smaller one
    ended, plans, told = [], [], []
    for compiled in ("on", "off"):
        net, rows = aofp.resnet(), []
        watching = aofp.observer(net, rows=rows, theta=theta, draws_per_half=24, stagger=False)
        how = stage(device=CUDA, recorder=recorder_of(CUDA, compiled), observers=[watching])
        ended.append((net, train(net, aofp.data(), phase, how)))
        plans.append(watching.plan())
        told.append(rows)
    kinds = [key[1] for key in replays if isinstance(key, tuple) and key[0] != "val"]
    assert len([drawn for _, drawn in kinds if drawn]) > 30
    # of the first half, some of whose draws were replayed
    assert told[0][0]["damage"] == pytest.approx(told[1][0]["damage"], rel=2e-2)
    if theta:
        kept = [len(indices) for indices in plans[0].kept.values()]
        assert len({masks for masks, _ in kinds}) > 1 and min(kept) < 8
    else:
        assert_alike(*ended, 2e-2)


def test_steps_with_cacs_gates_are_replayed(replays: list[object]) -> None:
    phase = replace(cac.PHASE, epochs=10)  # of five full batches and a smaller one
    ended, sums = [], []
    for compiled in ("on", "off"):
        net = cac.resnet()
        work = replace(cac.work(net, cac.both(), []), epochs=20)  # where it would go on to removal
        watching = cac.cac(start=0.6).observer(work)
        told = stage(device=CUDA, recorder=recorder_of(CUDA, compiled), observers=[watching])
        ended.append((net, train(net, cac.data(), phase, told)))
        sums.append(watching.estimator.sums)
    assert replays.count((16, "gates")) == 10 * 5 - WARM_UP
    assert replays.count((10, "gates")) == 10 - WARM_UP_LATER
    assert torch.equal(*(own["slope n"] for own in sums))  # by the draws alone
    assert_alike(*ended, 2e-2)


def test_a_replay_is_fed_by_the_seed_of_its_step() -> None:
    """Dropout is drawn anew at every step: without, the losses would be of one mask."""
    for compiled in ("on", "off"):
        first, second = (trained(LONG, compiled, seed=seed)[1].history for seed in (5, 5))
        assert [r.loss for r in first] == pytest.approx([r.loss for r in second], rel=1e-4)


class Strict(Progress):
    """Lets nothing wait for the device between the first and the last step of later epochs."""

    steps = 0

    @contextmanager
    def task(self, stage: str, total_steps: int, *, done: int = 0) -> Iterator[Any]:
        yield self

    def advance(self) -> None:
        self.steps += 1
        within = self.steps > 4 * 4 and self.steps % 4
        torch.cuda.set_sync_debug_mode("error" if within else "default")

    def epoch(self, row: object) -> None:
        assert self.steps % 4 == 0


@pytest.mark.parametrize("compiled", ["on", "off"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_nothing_waits_for_the_device_within_an_epoch(
    compiled: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunebench.training.loop.LOOK_EVERY", 2)
    strict = Strict(quiet=True)
    try:
        trained(replace(LONG, precision=precision), compiled, progress=strict)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert strict.steps == 13 * 4


@pytest.mark.parametrize("moment", [2, 17, 30])
def test_a_killed_training_ends_where_it_would_have(moment: int, tmp_path: Path) -> None:
    expected = trained(LONG, "on")
    checkpoint = KilledAfter(tmp_path / "c.pt", 0.0)
    checkpoint.left = moment
    with pytest.raises(Killed):
        trained(LONG, "on", checkpoint=checkpoint)
    again = trained(LONG, "on", network(77), checkpoint=checkpoint)
    assert_alike(again, expected, 1e-4)


def test_a_loss_that_is_not_finite_is_found() -> None:
    with pytest.raises(TrainingError, match="the loss is not finite at epoch 7 of 13, step 2 of 4"):
        trained(LONG, "on", nn.Sequential(Poison(26), *network()))


def test_what_cannot_be_recorded_goes_on_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    def asking() -> nn.Module:
        return nn.Sequential(Asks(), *network())

    got = trained(LONG, "auto", asking(), progress=Progress())
    assert "the step cannot be recorded (" in capsys.readouterr().err
    assert_alike(got, trained(LONG, "off", asking()), 1e-4)
    with pytest.raises(TrainingError, match=r"run\.compile=on: the step cannot be recorded"):
        trained(LONG, "on", asking())
    # and the device is as it was
    assert_alike(trained(LONG, "on"), trained(LONG, "off"), 1e-4)


class Skips(nn.Module):
    """Asks a generator of the host whether it does anything."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, images: Tensor) -> Tensor:
        return images if self.training and self.draw() < 0.5 else images * 2


@pytest.mark.parametrize("draw", [random.random, lambda: float(torch.rand(1))])
def test_what_is_drawn_on_the_host_is_not_recorded(
    draw: Callable[[], float], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(LONG, "auto", nn.Sequential(Skips(draw), *network()), progress=Progress())
    assert "(it draws random numbers on the host" in capsys.readouterr().err


def test_nothing_is_recorded_where_something_looks_on(replays: list[object]) -> None:
    observed = trained(LONG, "on", observers=[Shrinker()])
    assert replays == []
    assert len(observed[1].history) == 13
