"""Holds what the stages of a run share: its data, device, ledger, log and tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunebench import measure, records
from prunebench.checkpoints import Checkpoint
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import Run
from prunebench.contracts import Observer
from prunebench.datasets import Data
from prunebench.errors import ConfigError
from prunebench.measure.accuracy import evaluating
from prunebench.recipes import Phase
from prunebench.recipes.sparsity import Sparsity
from prunebench.records.jsonfile import write_bytes
from prunebench.records.metrics import MetricsLog
from prunebench.records.predictions import PREDICTIONS
from prunebench.reproducibility import seed_for
from prunebench.run.ledger import Ledger
from prunebench.run.step import Method, Sample, draw_sample
from prunebench.run.trained import Trained
from prunebench.schedules import Step
from prunebench.tracking import TrackedRun
from prunebench.tracking.progress import Progress
from prunebench.training import distributed
from prunebench.training.batches import split_on
from prunebench.training.heads import head_weight, headed, initial_weight, without_head
from prunebench.training.loop import train
from prunebench.training.recorder import recorder_of
from prunebench.training.stage import Stage

#: names of the stages whose training an observer may watch
PRUNING, FINETUNE = "pruning", "finetune"


@dataclass
class RunContext:
    """Holds one run that is under way, and offers its stages training, measuring and logging.

    Attributes:
        run: the checked configuration.
        folder: where the run's files go.
        ledger: the finished stages.
        data: the splits.
        device: where the networks are.
        metrics: the run's own log, ``metrics.jsonl``.
        tracker: an outside service that mirrors the log, or a stand-in.
        progress: shows the user lines and epochs.
        head: weights of the head that a network for faces was last trained with.
    """

    run: Run
    folder: Path
    ledger: Ledger
    data: Data
    device: torch.device
    metrics: MetricsLog
    tracker: TrackedRun
    progress: Progress
    head: torch.Tensor | None = None
    _sample: Sample | None = None

    def sample(self, step: Step) -> Sample:
        """Returns the training images that criterion and repair look at; see `draw_sample`."""
        if self._sample is None or step.new_images:
            count = Method.of(self.run).images_needed
            self._sample = draw_sample(self.run, self.data, self.device, count, step)
        return self._sample

    @property
    def example(self) -> torch.Tensor:
        """An image [1, C, H, W] to trace and verify with."""
        return tracing_image(self.data.shape).to(self.device)

    def replay(self) -> None:
        """Sends the rows of earlier attempts to the tracker, which has none in a new attempt."""
        for row in self.metrics.rows:
            self.tracker.log(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to the log and sends it to the tracker, unless it was logged before."""
        if self.metrics.append(row):
            self.tracker.log(row)

    def train(
        self,
        network: nn.Module,
        phase: Phase,
        name: str,
        checkpoint: Checkpoint,
        observer: Observer | None = None,
    ) -> Trained:
        """Trains `network` in place, as process 0 of the run's processes.

        A network that ends in an embedding is trained with a head on top, whose weights carry over
        from stage to stage.
        """
        whole = self._with_head(network, phase)
        observers: list[Observer] = []
        if phase.penalised:
            observers.append(Sparsity(phase, self.data.shape, stage=name, log=self.log))
        if observer is not None:
            observers.append(observer)
        distributed.invite(distributed.JointTraining(whole, phase, name))
        done = train(
            whole,
            self.data,
            phase,
            Stage(
                name=name,
                seed=self.run.settings.seed,
                device=self.device,
                checkpoint=checkpoint,
                observers=observers,
                progress=self.progress,
                recorder=recorder_of(self.device, self.run.settings.compile),
                log=self.log,
            ),
        )
        return Trained(
            last=network.state_dict(),
            best=done.best_state and without_head(whole, done.best_state),
            best_is_last=done.best is not None and done.best == done.last,
            seconds=done.seconds,
            epochs=[record.row(name, phase.epochs) for record in done.history],
            head=head_weight(whole),
        )

    def _with_head(self, network: nn.Module, phase: Phase) -> nn.Module:
        """Returns the module to train: `network`, with a head on top if it ends in an embedding."""
        if not self.run.model.embeds:
            return network
        if self.head is None:
            with evaluating(network):
                width = network(self.example).shape[1]
            seed = seed_for(self.run.settings.seed, "initial head")
            self.head = initial_weight(self.data.classes, width, seed)
        return headed(network, self.head, phase)

    def trained(
        self, network: nn.Module, phase: Phase, name: str, observer: Observer | None = None
    ) -> Trained:
        """Returns the result of the training stage `name`, computed now or before a kill.

        Which weights `network` has afterwards is undefined: load those of the result.
        """

        def compute(checkpoint: Checkpoint) -> dict[str, Any]:
            return self.train(network, phase, name, checkpoint, observer).pack()

        done = Trained.unpack(self.ledger.do(name, compute))
        self.head = done.head
        return done

    def measure(
        self, stage: str, network: nn.Module, how: Callable[[str, nn.Module], str] | None = None
    ) -> records.Measurement:
        """Returns the measurement of `network` at `stage`, taken now or before a kill.

        The ledger keeps it, so that each stage reads the test set once.

        Args:
            stage: name of the stage in the report.
            network: on the run's device.
            how: computes the record as JSON from `stage` and `network`; None = `measured_json`.
        """
        name, compute = f"measure-{stage}", how or self.measured_json
        done = self.ledger.do(name, lambda _: {"measurement": compute(stage, network)})
        measured = records.from_json(records.Measurement, done["measurement"], name)
        self._log_and_show(measured)
        return measured

    def measure_again(self, stage: str, measured: records.Measurement) -> records.Measurement:
        """Returns `measured` under the name of a later `stage` that did not change the network."""
        answers = self.folder / PREDICTIONS / f"{measured.stage}.npz"
        if answers.exists():
            write_bytes(answers.with_stem(stage), answers.read_bytes())
        again = replace(measured, stage=stage)
        self._log_and_show(again)
        return again

    def _log_and_show(self, measured: records.Measurement) -> None:
        """Logs a measurement, and shows the user its main figures."""
        stage = measured.stage
        row = {"stage": stage, "params": measured.params, "macs": measured.macs}
        if measured.test is not None:
            row[f"test/{measured.test.key}"] = measured.test.accuracy
            self.progress.note(
                f"{stage}: test {measured.test.title} {measured.test.accuracy:.2f} %, "
                f"{measured.params:,} params, {measured.macs:,} MACs"
            )
        self.log(row)

    def measured_json(self, stage: str, network: nn.Module) -> str:
        """Measures `network` and returns the record as JSON."""
        batches = (1, self.run.settings.latency_batch)
        verified = self.verified(network)
        test = as_score(verified) if verified else self.tested(stage, network)
        measured = records.Measurement(
            stage=stage,
            params=measure.params(network),
            macs=measure.macs(network, self.example),
            size_bytes=measure.size_bytes(network),
            test=test,
            val=None if verified else self.validation(network),
            latency=measure.latencies(network, self.data.shape, batches),
            verification=verified or None,
        )
        return records.to_json(measured)

    def verified(self, network: nn.Module) -> dict[str, records.Verification]:
        """Returns name -> result of `network` on each verification set; empty if there is none."""
        return {
            name: measure.verify(network, split_on(self.device, self.data, pairs.images), pairs)
            for name, pairs in self.data.pairs.items()
        }

    def tested(self, stage: str, network: nn.Module) -> records.Score | None:
        """Returns the score of `network` on the test images, and writes its predictions to a file.

        None if there are no test images.
        """
        if not len(self.data.test):
            return None
        split = split_on(self.device, self.data, self.data.test)
        test, predictions = measure.answers(network, split)
        predictions.write(self.folder / PREDICTIONS / f"{stage}.npz")
        return test

    def validation(self, network: nn.Module) -> records.Score | None:
        """Returns the score of `network` on the validation images; None if there are none."""
        if not len(self.data.val):
            return None
        return measure.evaluate(network, split_on(self.device, self.data, self.data.val))


def as_score(verified: Mapping[str, records.Verification]) -> records.Score:
    """Returns the result on the first verification set in the form of a test score."""
    name, first = next(iter(verified.items()))
    correct, seen = sum(first.correct), sum(first.pairs)
    return records.Score(correct=correct, correct_top5=None, seen=seen, loss=None, metric=name)


def pick_device(name: str) -> torch.device:
    """Returns the device that ``run.device`` names; for ``auto``, CUDA if there is any.

    Raises:
        ConfigError: it names a CUDA device that this machine does not have.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(
            f"run.device={name}: this machine has {there} CUDA devices; use run.device=cpu"
        )
    return device
