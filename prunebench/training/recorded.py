"""Records training steps once and replays them, so that Python need not launch every kernel.

Launching a step of a small network from Python takes longer than computing it. The recorded
function is `learn`, the same that a CPU runs. Before an epoch begins, all that it needs is put on
the device: random draws, learning rates, and a counter of steps; a replay needs nothing from the
host. The images of an epoch are cropped and mirrored together beforehand, which saves twenty tiny
operations per step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial

import torch
from torch import Tensor

from prunebench.contracts import RepeatingObserver
from prunebench.errors import TrainingError
from prunebench.recipes import Phase
from prunebench.training import distributed
from prunebench.training.optim import learning_rate
from prunebench.training.recorder import Recorder, Work
from prunebench.training.resident import ResidentSplit, draw_epoch
from prunebench.training.split import Split, images_at
from prunebench.training.stage import Stage
from prunebench.training.state import Training
from prunebench.training.step import autocast, begin_step, count_step, learn

#: how often the first work runs unrecorded before it is recorded, while libraries are loaded,
#: memory is reserved and the optimizer makes its state
WARM_UP = 3
#: the same for all later work, for which libraries only choose algorithms by its shapes
WARM_UP_LATER = 1
#: number of kinds of work that are remembered, the most recent ones. Each decision of a criterion
#: makes new ones, and each recording takes memory. At most a few dozen alternate: layers that are
#: scored at different steps, and the last batches of an epoch
KEPT = 32
#: number of images that are cropped at once: more would need more temporary memory
AT_ONCE = 4096


def recordable(stage: Stage, phase: Phase, *splits: Split) -> bool:
    """Returns whether the steps of a training can be recorded.

    They cannot if an observer needs to see each step, if images are read from disk (their addresses
    change), or if several processes exchange data within a step. Nor are they with fp16: what its
    loss scaler decides has not been tested.
    """
    return (
        stage.recorder is not None
        and all(isinstance(observer, RepeatingObserver) for observer in stage.observers)
        and distributed.size() == 1
        and phase.precision != "fp16"
        and all(isinstance(split, ResidentSplit) for split in splits)
    )


class Replays:
    """Runs work that recurs: the first times as it is, then recorded and replayed."""

    def __init__(self, recorder: Recorder, tell: Callable[[str], None]) -> None:
        """Starts without recordings.

        Args:
            recorder: makes the recordings.
            tell: receives a line if something cannot be recorded.
        """
        self._recorder, self._tell = recorder, tell
        # key -> how often the work was run, or what replays it; the most recent key comes last
        self._known: dict[Hashable, int | Work] = {}
        self._failed = False
        self._enough = WARM_UP

    def do(self, key: Hashable | None, work: Work, before_unrecorded: Work | None = None) -> None:
        """Does `work`, which changes tensors in place, and the same way whenever `key` is the same.

        Args:
            key: identifies the work; None for work that does not recur.
            work: what to do.
            before_unrecorded: called before `work` runs unrecorded after a failed recording.

        Raises:
            TrainingError: it cannot be recorded, and the recorder insists.
        """
        if key is None:
            self._recorder.warm_up(work)
            return
        known = self._known.pop(key, 0)
        if isinstance(known, int) and known >= self._enough and not self._failed:
            known = self._recorded(work) or known
            if self._failed and before_unrecorded:
                before_unrecorded()
        if not isinstance(known, int):
            known()
        elif self._failed:
            work()
        else:
            self._recorder.warm_up(work)
            known += 1
        self._known[key] = known
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]

    def _recorded(self, work: Work) -> Work | None:
        """Returns a function that replays `work`; None if it cannot be recorded."""
        try:
            found = self._recorder.record(work)
            self._enough = WARM_UP_LATER
            return found
        except RuntimeError as error:
            first: BaseException = error
            while first.__context__ is not None:  # the later errors only say that recording failed
                first = first.__context__
            reason = str(first).strip().split("\n")[0]
            if self._recorder.insists:
                raise TrainingError(
                    f"run.compile=on: the step cannot be recorded ({reason}); try run.compile=auto"
                ) from error
            self._failed = True
            self._tell(
                f"the step cannot be recorded ({reason}); training continues as with "
                "run.compile=off"
            )
            return None


class RecordedEpochs:
    """Does the epochs of a training whose steps are recorded; see `recordable`."""

    def __init__(self, run: Training) -> None:
        """Allocates the tensors that recorded steps read."""
        stage, device = run.stage, run.stage.device
        assert isinstance(run.train, ResidentSplit) and isinstance(run.val, ResidentSplit)
        assert stage.recorder is not None
        self.run, self.train, self.val = run, run.train, run.val
        self.replays = Replays(stage.recorder, stage.progress.note)
        self.now = torch.zeros(1, dtype=torch.int64, device=device)
        self.ranges: dict[int, Tensor] = {}  # size of a batch -> 0 ... size - 1, on the device
        groups = run.optimizer.param_groups
        self.lr = torch.stack([group["lr"] for group in groups])
        for group, lr in zip(groups, self.lr, strict=True):
            group["lr"] = lr  # a view: a step writes to self.lr
        self.rates = torch.zeros(run.steps, len(groups), device=device)
        channels, height, width = run.train.shape
        # NHWC, so that a batch is channels_last
        shape = (len(run.train), height, width, channels)
        self.pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        self.labels = torch.empty_like(run.train.labels)
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)

    def steps(self) -> Iterator[None]:
        """Does the remaining steps of the current epoch, one per iteration."""
        run, first = self.run, self.run.step
        self._prepare_epoch()
        for step in range(first, run.steps):
            images = images_at(step, len(self.train), run.phase.batch_size)
            begin = partial(begin_step, run, images)
            begin()
            self.replays.do(self._key(step, images), partial(self._step, images), begin)
            count_step(run, images)
            yield

    def count_correct(self, size: int) -> tuple[int, int]:
        """Returns how many validation images the network gets right, and how many there are.

        `size` is the number of images per batch.
        """
        self.counts.zero_()
        self.now.zero_()
        for start in range(0, len(self.val), size):
            images = min(size, len(self.val) - start)
            kind = self._key(0, images)  # observers may have put hooks on the network
            self.replays.do(kind and ("val", kind), partial(self._count, size, images))
        correct, seen = self.counts.tolist()
        return correct, seen

    def _prepare_epoch(self) -> None:
        """Puts on the device what is known before the epoch begins."""
        run, seed, stage = self.run, self.run.stage.seed, self.run.stage.name
        n, data = len(self.train), self.train.data
        drawn = draw_epoch(n, data, seed=seed, stage=stage, epoch=run.epoch).to(run.stage.device)
        for start in range(0, n, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            images, labels = self.train.pixels(drawn.part(part))
            self.pixels[part] = images.permute(0, 2, 3, 1)
            self.labels[part] = labels
        begun = run.epoch * run.steps
        rates = [learning_rate(run.phase, begun + step, run.steps) for step in range(run.steps)]
        times = [group["rate"] for group in run.optimizer.param_groups]
        self.rates.copy_(torch.tensor(rates)[:, None] * torch.tensor(times))
        self.now.fill_(run.step)

    def _key(self, step: int, images: int) -> Hashable | None:
        """Returns the key of a step on `images` images; None if no other step equals it."""
        run, kinds = self.run, []
        for observer in run.stage.observers:
            assert isinstance(observer, RepeatingObserver)
            kinds.append(observer.repeats(run.epoch, step, run.steps))
        return None if None in kinds else (images, *kinds)

    def _places(self, size: int, images: int) -> Tensor:
        """Returns the places of batch `now`, int64 [images]; earlier batches have `size` images."""
        if images not in self.ranges:
            self.ranges[images] = torch.arange(images, device=self.now.device)
        return self.ranges[images].add(self.now, alpha=size)

    def _step(self, count: int) -> None:
        """Does step `now` on `count` images, and advances `now`."""
        run = self.run
        own = self._places(run.phase.batch_size, count)
        images = self.pixels.index_select(0, own).permute(0, 3, 1, 2)
        labels = self.labels.index_select(0, own)
        torch.index_select(self.rates, 0, self.now, out=self.lr[None])
        learn(run, self.train.normalised(images), labels, step=self.now[0])
        self.now += 1

    def _count(self, size: int, images: int) -> None:
        """Counts the correct answers in validation batch `now`, and advances `now`."""
        with torch.inference_mode(), autocast(self.run):
            batch = self.val.stored(self._places(size, images))
            count_batch(self.run, *batch, self.counts)
        self.now += 1


def count_batch(run: Training, images: Tensor, labels: Tensor, counts: Tensor) -> None:
    """Adds to `counts` how many images the validated network gets right, and how many there are."""
    counts[0] += (run.shown(images).argmax(1) == labels).sum()
    counts[1] += len(labels)
