"""Steps that are recorded once and replayed: a GPU is not asked again, kernel by kernel, in Python.

A step of a small network takes longer to ask for than to compute. What is recorded is `learn`, the
same function that runs as it comes on a CPU. Before an epoch begins everything lies on the device:
its draws, its learning rates, and a counter that says which step it is; so a replay needs nothing
from the host but the word to go. The images of an epoch are cropped and mirrored all at once then,
which is twenty tiny operations less in every step.
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

#: times that work is done as it comes before it is recorded: libraries choose their algorithms
WARM_UP = 3
#: kinds of work that are remembered, those done last: each decision of a criterion makes new ones,
#: and each recording takes memory; a few dozen take turns at most (layers that are scored at
#: different steps, and the last batches of an epoch)
KEPT = 32
#: images that are cropped at once: more take more memory on the way
AT_ONCE = 4096


def recordable(stage: Stage, phase: Phase, *splits: Split) -> bool:
    """Whether the steps of a training can be recorded.

    Some observers look at each step anew, images that are read from a disk arrive at
    addresses of their own, several processes meet on the way, and what float16's scaler decides is
    not tested.
    """
    return (
        stage.recorder is not None
        and all(isinstance(observer, RepeatingObserver) for observer in stage.observers)
        and distributed.size() == 1
        and phase.precision != "fp16"
        and all(isinstance(split, ResidentSplit) for split in splits)
    )


class Replays:
    """Work by what tells its recordings apart: done as it comes at first, then recorded."""

    def __init__(self, recorder: Recorder, tell: Callable[[str], None]) -> None:
        """Has recorded nothing.

        Args:
            recorder: how.
            tell: receives a line where something cannot be recorded.
        """
        self._recorder, self._tell = recorder, tell
        # how often it was done, or what replays it; what was done last stands last
        self._known: dict[Hashable, int | Work] = {}
        self._failed = False

    def do(self, key: Hashable | None, work: Work, anew: Work | None = None) -> None:
        """Does `work`, which changes tensors in place and is the same for every `key`.

        Args:
            key: what tells the work from other work; None where it is done but once.
            work: what is to be done.
            anew: comes before work whose recording broke off is done as it comes.

        Raises:
            TrainingError: it cannot be recorded, and the recorder insists.
        """
        if key is None:
            self._recorder.warm_up(work)
            return
        known = self._known.pop(key, 0)
        if known == WARM_UP and not self._failed:
            known = self._recorded(work) or known
            if self._failed and anew:
                anew()
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
        """Returns what replays `work`; None where it cannot be recorded."""
        try:
            return self._recorder.record(work)
        except RuntimeError as error:
            first: BaseException = error
            while first.__context__ is not None:  # what follows says only that it broke off
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
    """The epochs of a training whose steps are recorded; see `recordable`."""

    def __init__(self, run: Training) -> None:
        """Lays out what a step reads."""
        stage, device = run.stage, run.stage.device
        assert isinstance(run.train, ResidentSplit) and isinstance(run.val, ResidentSplit)
        assert stage.recorder is not None
        self.run, self.train, self.val = run, run.train, run.val
        self.replays = Replays(stage.recorder, stage.progress.note)
        self.now = torch.zeros(1, dtype=torch.int64, device=device)
        self.within: dict[int, Tensor] = {}  # images -> their places in a batch of so many
        groups = run.optimizer.param_groups
        self.lr = torch.stack([group["lr"] for group in groups])
        for group, lr in zip(groups, self.lr, strict=True):
            group["lr"] = lr  # a view
        self.rates = torch.zeros(run.steps, len(groups), device=device)
        channels, height, width = run.train.shape
        # as channels_last has it
        shape = (len(run.train), height, width, channels)
        self.pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        self.labels = torch.empty_like(run.train.labels)
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)

    def steps(self) -> Iterator[None]:
        """Does the steps of the epoch under way that are not done yet, one at each turn."""
        run, first = self.run, self.run.step
        self._lay_out()
        for step in range(first, run.steps):
            images = images_at(step, len(self.train), run.phase.batch_size)
            begin = partial(begin_step, run, images)
            begin()
            self.replays.do(self._kind(step, images), partial(self._step, images), begin)
            count_step(run, images)
            yield

    def count_correct(self, size: int) -> tuple[int, int]:
        """Returns how many validation images the network gets right, `size` at a time, and all."""
        self.counts.zero_()
        self.now.zero_()
        for start in range(0, len(self.val), size):
            images = min(size, len(self.val) - start)
            kind = self._kind(0, images)  # what observers have put on the network is seen here, too
            self.replays.do(kind and ("val", kind), partial(self._count, size, images))
        correct, seen = self.counts.tolist()
        return correct, seen

    def _lay_out(self) -> None:
        """Brings what is known before the epoch begins to the device."""
        run, seed, stage = self.run, self.run.stage.seed, self.run.stage.name
        n, data = len(self.train), self.train.data
        drawn = draw_epoch(n, data, seed=seed, stage=stage, epoch=run.epoch).to(run.stage.device)
        for start in range(0, n, AT_ONCE):
            some = slice(start, start + AT_ONCE)
            images, labels = self.train.pixels(drawn.part(some))
            self.pixels[some] = images.permute(0, 2, 3, 1)
            self.labels[some] = labels
        begun = run.epoch * run.steps
        rates = [learning_rate(run.phase, begun + step, run.steps) for step in range(run.steps)]
        times = [group["rate"] for group in run.optimizer.param_groups]
        self.rates.copy_(torch.tensor(rates)[:, None] * torch.tensor(times))
        self.now.fill_(run.step)

    def _kind(self, step: int, images: int) -> Hashable | None:
        """Returns what tells a step of so many images from others; None where none is alike."""
        run, kinds = self.run, []
        for observer in run.stage.observers:
            assert isinstance(observer, RepeatingObserver)
            kinds.append(observer.repeats(run.epoch, step, run.steps))
        return None if None in kinds else (images, *kinds)

    def _places(self, size: int, images: int) -> Tensor:
        """Where the images of batch `now` lie, int64 [images], all before it being of `size`."""
        if images not in self.within:
            self.within[images] = torch.arange(images, device=self.now.device)
        return self.within[images].add(self.now, alpha=size)

    def _step(self, count: int) -> None:
        """Does step `now`, and moves on."""
        run = self.run
        own = self._places(run.phase.batch_size, count)
        images = self.pixels.index_select(0, own).permute(0, 3, 1, 2)
        labels = self.labels.index_select(0, own)
        torch.index_select(self.rates, 0, self.now, out=self.lr[None])
        learn(run, self.train.normalised(images), labels, step=self.now[0])
        self.now += 1

    def _count(self, size: int, images: int) -> None:
        """Counts batch `now` of the validation images, and moves on."""
        with torch.inference_mode(), autocast(self.run):
            batch = self.val.stored(self._places(size, images))
            count_batch(self.run, *batch, self.counts)
        self.now += 1


def count_batch(run: Training, images: Tensor, labels: Tensor, counts: Tensor) -> None:
    """Adds the images that the network as it is validated gets right, and all, to `counts`."""
    counts[0] += (run.shown(images).argmax(1) == labels).sum()
    counts[1] += len(labels)
