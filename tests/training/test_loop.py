"""The training loop: exact resumption, a plain loop for comparison, and divergence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from prunebench.checkpoints import Checkpoint, load
from prunebench.contracts import Moment, Observer
from prunebench.datasets import Arrays, Data
from prunebench.errors import CheckpointError, TrainingError
from prunebench.recipes import Phase
from prunebench.training.loop import train
from prunebench.training.optim import learning_rate
from prunebench.training.resident import ResidentSplit
from prunebench.training.stage import Stage, TrainResult

CPU = torch.device("cpu")
PHASE = Phase(
    epochs=3, batch_size=8, optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True,
    weight_decay=1e-3, decay="weights", schedule="cosine", milestones=[], gamma=0.1,
    warmup_epochs=1.0, label_smoothing=0.1, precision="float32", channels_last=True,
)  # fmt: skip
STEPS = 4  # per epoch: 30 images in batches of 8


class Killed(BaseException):
    """Stands for SIGKILL."""


def split(n: int) -> Arrays:
    source = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=source)
    return Arrays(images, torch.randint(0, 4, (n,), generator=source))


def data(*, val: int = 12) -> Data:
    return Data(
        name="noise", train=split(30), val=split(val), test=split(1), classes=4,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop_padding=1, flip=True,
    )  # fmt: skip


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3),
        nn.Conv2d(6, 6, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip


class Shrinker(Observer):
    """An observer with state: counts its steps and pulls weights by that count."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.calls = 0
        self.total: Any = 0.0
        self.events: list[str] = []

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        self.weight = next(network.parameters())
        self.events.append("start")

    def after_backward(self, moment: Moment) -> None:
        assert self.weight.grad is not None
        self.total = self.total + self.weight.grad.abs().sum()
        self.weight.grad.add_(self.weight.sign(), alpha=1e-3 * self.calls)

    def after_step(self, moment: Moment) -> bool:
        self.calls += 1
        return self.calls == self.stop_after

    def finished(self) -> None:
        self.events.append("finished")

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.total = state["calls"], state["total"]
        self.events.append("load")


class KilledAt(Shrinker):
    """The same, in a process that is killed after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def after_backward(self, moment: Moment) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        super().after_backward(moment)


def stage(**changes: Any) -> Stage:
    return replace(Stage(name="baseline", seed=5, device=CPU), **changes)


def outcome(net: nn.Module, result: TrainResult) -> list[object]:
    """All that must be equal, without the clock."""
    history = [{**asdict(record), "seconds": 0} for record in result.history]
    assert result.best_state is not None
    assert result.best is not None
    weights = [*net.state_dict().values(), *result.best_state.values()]
    return [history, result.best.epoch, [(w.stride(), w.tolist()) for w in weights]]


def run_killed(folder: Path, moments: list[int], phase: Phase) -> tuple[list[object], Shrinker]:
    """A training killed after each of `moments` steps of its process, then left alone."""
    checkpoint = Checkpoint(folder / "c.pt", 0.0)  # after every step
    for moment in moments:
        with pytest.raises(Killed):
            train(
                network(), data(), phase, stage(checkpoint=checkpoint, observers=[KilledAt(moment)])
            )
    # with a checkpoint, nothing depends on the weights or the generator of the new process
    net, observer = network(77 if checkpoint.path.exists() else 0), Shrinker()
    torch.manual_seed(123)
    result = train(net, data(), phase, stage(checkpoint=checkpoint, observers=[observer]))
    return outcome(net, result), observer


@pytest.mark.parametrize(
    ("optimizer", "precision", "ema"),
    [
        ("sgd", "float32", 0.0),
        ("adamw", "float32", 0.9),
        ("sgd", "bf16", 0.0),
        ("sgd", "fp16", 0.0),
    ],
)
def test_a_killed_training_ends_bit_for_bit_where_it_would_have(
    tmp_path: Path, optimizer: str, precision: str, ema: float
) -> None:
    changes = {"optimizer": optimizer, "precision": precision, "ema": ema}
    phase = replace(PHASE, **changes, accumulate=2, nesterov=False, lr=0.01)
    net, observer = network(), Shrinker()
    expected = outcome(net, train(net, data(), phase, stage(observers=[observer])))
    # before the first step, in the middle, at an epoch's first and last step; since the last kill:
    # after steps 0, 1, 6 and 11 of one training, 3, 4 and 7 of another, 1, 2 and 9 of a third
    for number, moments in enumerate(([0, 1, 5, 5], [3, 1, 3], [1, 1, 7])):
        got, again = run_killed(tmp_path / str(number), moments, phase)
        assert got == expected, moments
        assert (again.calls, again.total.item()) == (12, observer.total.item())


def test_a_kill_while_the_epoch_is_logged_loses_nothing(tmp_path: Path) -> None:
    net = network()
    expected = outcome(net, train(net, data(), PHASE, stage()))
    for epoch in (1, 2, 3):
        checkpoint = Checkpoint(tmp_path / f"{epoch}.pt", 0.0)
        rows: list[Mapping[str, object]] = []

        def log(row: Mapping[str, object], *, last: int = epoch) -> None:
            if row["epoch"] == last:
                raise Killed

        with pytest.raises(Killed):
            train(network(), data(), PHASE, stage(checkpoint=checkpoint, log=log))
        net = network(3)
        result = train(net, data(), PHASE, stage(checkpoint=checkpoint, log=rows.append))
        assert outcome(net, result) == expected
        assert [row["epoch"] for row in rows] == list(range(epoch, 4))


@pytest.mark.parametrize(("at", "place"), [(2, (0, 2)), (5, (1, 0)), (7, (1, 2))])
def test_saving_only_now_and_then_repeats_the_lost_steps(
    at: int, place: tuple[int, int], tmp_path: Path
) -> None:
    net = network()
    expected = outcome(net, train(net, data(), PHASE, stage(observers=[Shrinker()])))
    asked: list[bool] = []

    class Seldom(Checkpoint):
        def due(self) -> bool:
            asked.append(True)
            return len(asked) == at

    # after four steps it is asked, and once more at the epoch's end
    checkpoint = Seldom(tmp_path / "c.pt", 0.0)
    with pytest.raises(Killed):
        train(network(), data(), PHASE, stage(checkpoint=checkpoint, observers=[KilledAt(7)]))
    state = load(checkpoint.path)
    assert (state["epoch"], state["step"]) == place
    net = network(3)
    observer = Shrinker()
    result = train(net, data(), PHASE, stage(checkpoint=checkpoint, observers=[observer]))
    assert outcome(net, result) == expected
    assert observer.events == ["start", "load", "finished"]


def test_an_epoch_is_saved_where_it_is_due_and_the_last_in_any_case(tmp_path: Path) -> None:
    saved: list[object] = []

    class Counting(Checkpoint):
        def save(self, state: Mapping[str, Any]) -> None:
            saved.append((state["epoch"], state["step"]))
            super().save(state)

    train(network(), data(), PHASE, stage(checkpoint=Counting(tmp_path / "c.pt", 1e9)))
    assert saved == [(3, 0)]
    ended = [Shrinker(stop_after=6)]  # in the middle of the second epoch
    train(network(), data(), PHASE,
          stage(checkpoint=Counting(tmp_path / "d.pt", 1e9), observers=ended))  # fmt: skip
    assert saved == [(3, 0), (2, 0)]


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", 1e9)
    net = network()
    expected = outcome(net, train(net, data(), PHASE, stage(checkpoint=checkpoint)))
    net = network(3)
    result = train(net, data(), PHASE, stage(checkpoint=checkpoint, log=_never))
    assert outcome(net, result) == expected


def _never(row: Mapping[str, object]) -> None:
    raise AssertionError(f"trained again: {row}")


def test_it_does_what_a_plain_loop_does() -> None:
    phase = replace(PHASE, channels_last=False)
    net, plain = network(), network()
    net[3], plain[3] = nn.Identity(), nn.Identity()  # dropout draws by the loop's own rule
    result = train(net, data(), phase, stage())
    optimizer = optim.SGD(
        [
            {"params": [plain[0].weight, plain[4].weight, plain[7].weight], "weight_decay": 1e-3},
            {"params": [w for w in plain.parameters() if w.dim() == 1], "weight_decay": 0.0},
        ],
        lr=1.0, momentum=0.9, nesterov=True,
    )  # fmt: skip
    images = ResidentSplit(data(), data().train, device=CPU)
    for epoch in range(3):
        plain.train()
        total, right = 0.0, 0
        batches = images.training_batches(8, seed=5, stage="baseline", epoch=epoch)
        for step, (x, y) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(phase, epoch * STEPS + step, STEPS)
            logits = plain(x)
            loss = functional.cross_entropy(logits, y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
            right += int((logits.argmax(1) == y).sum())
        plain.eval()
        with torch.no_grad():
            guesses = plain(next(ResidentSplit(data(), data().val, device=CPU).batches(99))[0])
        record = result.history[epoch]
        assert record.loss == pytest.approx(total / 30, rel=1e-5)
        assert (record.correct, record.seen) == (right, 30)
        assert (record.val_correct, record.val_seen) == (
            int((guesses.argmax(1) == data().val.labels).sum()), 12,
        )  # fmt: skip
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_best_epoch_is_the_first_with_most_right() -> None:
    copies: list[dict[str, Tensor]] = []
    net = network()

    def log(row: Mapping[str, object]) -> None:
        copies.append({name: value.clone() for name, value in net.state_dict().items()})

    result = train(net, data(), replace(PHASE, epochs=6), stage(log=log))
    counts = [record.val_correct for record in result.history]
    assert result.best is not None
    assert result.best.epoch == counts.index(max(counts)) + 1
    assert result.best_state is not None
    for name, value in copies[result.best.epoch - 1].items():
        assert torch.equal(result.best_state[name], value)
    assert all(torch.equal(copies[-1][k], v) for k, v in net.state_dict().items())  # left: last
    assert result.last is result.history[-1]
    assert result.seconds == pytest.approx(sum(record.seconds for record in result.history))


def test_no_epochs_and_no_validation_images() -> None:
    net, before = network(), network().state_dict()
    result = train(net, data(), replace(PHASE, epochs=0, warmup_epochs=0.0), stage())
    assert (result.history, result.best, result.best_state, result.last) == ((), None, None, None)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    result = train(net, data(val=0), PHASE, stage())
    assert (len(result.history), result.best, result.best_state) == (3, None, None)


def test_several_observers_follow_each_other_and_are_resumed_in_order(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", 1e9)
    first, second = Shrinker(stop_after=6), Shrinker()
    train(network(), data(), PHASE, stage(observers=[first, second], checkpoint=checkpoint))
    assert first.calls == second.calls == 6
    assert first.total != second.total  # it sees the gradients that the first has left
    again = [Shrinker(), Shrinker()]
    train(network(), data(), PHASE, stage(observers=again, checkpoint=checkpoint))
    assert [one.total for one in again] == [first.total, second.total]
    with pytest.raises(CheckpointError, match="its number of observers is 2, not 1; delete it"):
        train(network(), data(), PHASE, stage(observers=[Shrinker()], checkpoint=checkpoint))


def test_an_observer_may_end_the_phase(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", 1e9)
    observer = Shrinker(stop_after=6)
    result = train(network(), data(), PHASE, stage(observers=[observer], checkpoint=checkpoint))
    assert [record.seen for record in result.history] == [30, 16]
    assert observer.events == ["start", "finished"]
    again = Shrinker()
    train(network(), data(), PHASE, stage(observers=[again], checkpoint=checkpoint))
    assert again.calls == 6


def test_memory_format_is_as_asked_within_and_contiguous_after() -> None:
    seen: list[bool] = []
    net = network()
    net[0].register_forward_pre_hook(
        lambda _, args: seen.append(
            args[0].is_contiguous(memory_format=torch.channels_last)
            and net[0].weight.is_contiguous(memory_format=torch.channels_last)
        )
    )
    train(net, data(), replace(PHASE, epochs=1), stage())
    assert seen
    assert all(seen)
    assert all(weight.is_contiguous() for weight in net.parameters())


def test_bf16_autocasts_the_forward_pass_and_keeps_float32_weights() -> None:
    kinds: set[torch.dtype] = set()
    net = network()
    net[0].register_forward_hook(lambda _, args, out: kinds.add(out.dtype))
    train(net, data(), replace(PHASE, precision="bf16"), stage())
    assert kinds == {torch.bfloat16}
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}


def test_a_batch_in_parts_gives_the_same_gradients_where_no_norm_sees_it() -> None:
    def trained(parts: int) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
        sizes: list[int] = []
        net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        train(net, data(val=0), replace(PHASE, accumulate=parts, epochs=1), stage())
        assert sizes == ([8, 8, 8, 6] if parts == 1 else [3, 3, 2] * 3 + [2, 2, 2])
        return net

    whole, parted = trained(1).state_dict(), trained(3).state_dict()
    assert all(torch.allclose(whole[name], parted[name], atol=1e-6) for name in whole)
    assert not all(torch.equal(whole[name], parted[name]) for name in whole)


def test_the_average_of_the_weights_is_what_comes_of_a_phase() -> None:
    seen: list[dict[str, Tensor]] = []

    class Watcher(Shrinker):
        def after_step(self, moment: Moment) -> bool:
            seen.append({k: v.detach().clone() for k, v in self.network.state_dict().items()})
            return False

        def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
            super().start(network, optimizer)
            self.network = network

    net = network()
    done = train(net, data(), replace(PHASE, ema=0.8), stage(observers=[Watcher()]))
    average = seen[0]
    for state in seen[1:]:
        average = {k: 0.8 * average[k] + 0.2 * v for k, v in state.items() if v.is_floating_point()}
    for name, value in average.items():
        assert torch.allclose(net.state_dict()[name], value, atol=1e-5), name
        assert not torch.allclose(seen[-1][name], value, atol=1e-5) or "bias" in name
    assert done.best_state is not None


def test_float16_is_trained_with_a_scaler_of_the_loss() -> None:
    dtypes, slopes = [], []

    class Watcher(Shrinker):
        def after_backward(self, moment: Moment) -> None:
            assert self.weight.grad is not None
            slopes.append(float(self.weight.grad.abs().max()))

    net = network()
    net[4].register_forward_hook(lambda _, given, out: dtypes.append(out.dtype))
    run = train(net, data(), replace(PHASE, precision="fp16"), stage(observers=[Watcher()]))
    assert {*dtypes} == {torch.float16}
    assert net[4].weight.dtype == torch.float32
    assert max(slopes) < 100  # observers see the gradients themselves, not 65,536 times them
    assert run.last is not None and run.last.correct > 0


def poisoned(at: int) -> tuple[nn.Module, Callable[..., None]]:
    """A network whose output is not a number at its `at`-th training step, counted from 1."""
    net, count = network(), 0

    def poison(_: nn.Module, args: object, out: Tensor) -> Tensor:
        nonlocal count
        count += net.training
        return out * (float("nan") if count == at and net.training else 1.0)

    return net, net.register_forward_hook(poison).remove


@pytest.mark.parametrize("every_seconds", [0.0, 1e9])
@pytest.mark.parametrize(
    ("at", "place"),
    [
        (1, "epoch 1 of 3, step 1 of 4"),
        (6, "epoch 2 of 3, step 2 of 4"),
        (12, "epoch 3 of 3, step 4 of 4"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_with_its_place(
    at: int, place: str, every_seconds: float, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", every_seconds)
    with pytest.raises(TrainingError) as caught:
        train(poisoned(at)[0], data(), PHASE, stage(checkpoint=checkpoint))
    assert str(caught.value) == (
        f"baseline: the loss is not finite at {place}; "
        "lower the recipe's lr=0.05, raise warmup_epochs=1"
    )
    # the poisoned weights never reach the checkpoint
    if checkpoint.path.exists():
        assert all(w.isfinite().all() for w in load(checkpoint.path)["network"].values())


def test_weights_that_blow_up_in_the_last_step_are_noticed() -> None:
    net = network()

    class Breaker(Shrinker):
        def after_step(self, moment: Moment) -> bool:
            with torch.no_grad():
                if moment.epoch == 2 and moment.step == 3:
                    net[7].bias[1] = float("inf")
            return False

    with pytest.raises(
        TrainingError, match=r"weights of '7\.bias' are not finite after epoch 3 of 3"
    ):
        train(net, data(), PHASE, stage(observers=[Breaker()]))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", 1e9)
    train(network(), data(), PHASE, stage(checkpoint=checkpoint))
    with pytest.raises(CheckpointError, match="another training: its seed is 5, not 6"):
        train(network(), data(), PHASE, stage(checkpoint=checkpoint, seed=6))
    with pytest.raises(CheckpointError, match="its phase is"):
        train(network(), data(), replace(PHASE, lr=0.5), stage(checkpoint=checkpoint))
    with pytest.raises(CheckpointError, match="of another network"):
        train(network()[:4].append(nn.Flatten()).append(nn.Linear(384, 4)), data(), PHASE,
              stage(checkpoint=checkpoint))  # fmt: skip


def test_the_log_gets_counts() -> None:
    rows: list[Mapping[str, object]] = []
    train(network(), data(), PHASE, stage(log=rows.append))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {
        "stage", "epochs", "epoch", "lr", "loss", "correct", "seen", "val_correct", "val_seen",
        "seconds",
    }  # fmt: skip


@pytest.mark.gpu
def test_cuda_sees_the_same_images_and_never_waits_within_an_epoch() -> None:
    cuda = torch.device("cuda")
    on_cpu = ResidentSplit(data(), data().train, device=CPU)
    on_cuda = ResidentSplit(data(), data().train, device=cuda, channels_last=True)
    batches = on_cuda.training_batches(8, seed=0, stage="s", epoch=0)
    for images, labels in on_cpu.training_batches(8, seed=0, stage="s", epoch=0):
        images_2, labels_2 = next(batches)
        torch.cuda.set_sync_debug_mode("default")
        assert torch.allclose(images, images_2.cpu(), atol=1e-6)
        assert torch.equal(labels, labels_2.cpu())
        torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")

    class Strict(Shrinker):
        def after_backward(self, moment: Moment) -> None:
            torch.cuda.set_sync_debug_mode("error")

        def after_step(self, moment: Moment) -> bool:
            if moment.step == moment.steps - 1:
                torch.cuda.set_sync_debug_mode("default")
            return False

    try:
        for precision in ("float32", "bf16"):
            phase = replace(PHASE, precision=precision)
            result = train(network(), data(), phase, stage(device=cuda, observers=[Strict()]))
            assert [record.seen for record in result.history] == [30] * 3
            assert result.best_state is not None
            assert {weight.device for weight in result.best_state.values()} == {CPU}
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_biases_move_as_much_faster_as_they_are_told_to() -> None:
    """One step from the same weights, without momentum and decay."""
    moved = []
    for rate in (1.0, 3.0):
        net = network()
        before = {name: weight.clone() for name, weight in net.named_parameters()}
        once = replace(
            PHASE, epochs=1, batch_size=len(data().train), lr=1e-3, momentum=0.0, nesterov=False,
            weight_decay=0.0, schedule="constant", warmup_epochs=0.0, bias_rate=rate,
        )  # fmt: skip
        result = train(net, data(), once, stage())
        assert result.last is not None
        assert result.last.lr == 1e-3
        moved.append({name: w.detach() - before[name] for name, w in net.named_parameters()})
    slow, fast = moved
    for name, by in slow.items():
        factor = 3 if name.endswith("bias") else 1
        torch.testing.assert_close(fast[name], factor * by, rtol=1e-3, atol=1e-7)
    assert any(name.endswith("bias") and bool(by.any()) for name, by in slow.items())


@pytest.mark.parametrize(("before", "timed"), [(0, True), (1, False)])
def test_algorithms_are_timed_where_enough_steps_are_left(
    before: int, timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunebench.training.loop.TIMED_FROM", 3 * STEPS)
    asked: list[dict[str, bool]] = []

    @contextmanager
    def noted(**how: bool) -> Iterator[None]:
        asked.append(how)
        yield

    monkeypatch.setattr("prunebench.training.loop.cuda_math", noted)
    checkpoint = Checkpoint(tmp_path / "c.pt", 0.0)
    if before:
        with pytest.raises(Killed):
            train(network(), data(), PHASE, stage(checkpoint=checkpoint, observers=[KilledAt(2)]))
    observers = [Shrinker()] if before else []
    train(network(), data(), PHASE, stage(checkpoint=checkpoint, observers=observers))
    assert asked[-1] == {"exact": False, "timed": timed}
