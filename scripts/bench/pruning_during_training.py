"""Measures what pruning during training costs per step: AOFP's scoring and CAC's gates.

    python scripts/bench/pruning_during_training.py [--batch 64] [--rounds 5] [--device cpu]

AOFP is averaged over one unsuccessful search in its widest layer: every half from all channels down
to two, one draw per step, a few draws per half. CAC draws its gates and updates its estimates at
every step. All variants do their steps alternately in one process; each figure is the median over
the rounds, in CPU time (wall time on CUDA). On CUDA, steps are also recorded as in the training
loop and compared with the plain step, recorded. `aofp_half_batch.py` measures what scoring half of
the batch does to the scores.
"""

import time
from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from result import Row, arguments, publish, write
from torch import Tensor, nn
from torch.nn import functional

from prunebench.budgets import Budget
from prunebench.channels import trace
from prunebench.contracts import Assignment, Moment, PruningObserver, RepeatingObserver
from prunebench.criteria import TrainingCriterion
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.run.step import dense_counts
from prunebench.training.recorded import Replays
from prunebench.training.recorder import recorder_of

ABOUT = """A training step observed by the criterion, compared with the same step in plain PyTorch
(forward, loss, backward, SGD). AOFP scores every layer at every step, averaged over a search from
all channels down to two; CAC draws gates at every step. CPU time of one thread, medians of
alternating rounds. Recorded steps (on CUDA, wall time) are compared with the recorded plain step;
their time includes the recording."""
#: number of halves in an unsuccessful search over 512 and 64 channels
HALVES = {"vgg16": 9, "resnet56": 6}
#: draws per half; the authors take 1000, so decisions weigh more here
DRAWS = 5
#: draws per half if steps are recorded: as many as there are steps between the decisions of two
#: layers, the steps of which are not recorded, when layers alternate as the authors' do
BETWEEN = {"vgg16": 76, "resnet56": 37}
#: steps of the training, far more than are timed
STEPS = 100_000
#: whether steps are recorded -> name of the variant to compare with
PLAIN = {False: "plain step", True: "plain step, recorded"}

#: does one training step, which is recorded if a recorder is given
Step = Callable[[Replays | None], None]


@dataclass(frozen=True)
class Variant:
    """Describes one way of training: a step, the steps per round, and whether they are recorded."""

    step: Step
    count: int
    recorded: bool

    def seconds(self, device: torch.device) -> float:
        """Returns the seconds per step of one round."""
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        recorder = recorder_of(device, "on") if self.recorded else None
        replays = Replays(recorder, print) if recorder else None
        start = clock()
        for _ in range(self.count):
            self.step(replays)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (clock() - start) / self.count


def observer(criterion: str, network: nn.Module, batch: int, **settings: object) -> PruningObserver:
    """Returns the criterion's observer, set up to prune nothing; `settings` override its own."""
    cmap = trace(network, torch.zeros(1, 3, 32, 32))
    budget = option("budget", "macs", Budget, keep=0.5)
    changes = {
        "aofp": {"theta": 0.0, "draws_per_half": DRAWS, "warmup_steps": 0, "stagger": False},
        "cac": {"start": 0.9, "end": 1.0},
    }[criterion] | settings
    return option("criterion", criterion, TrainingCriterion, **changes).observer(
        Assignment(
            cmap=cmap,
            groups=budget.select(cmap),
            limits=budget.limits(cmap, dense_counts(cmap)),
            floors=budget.floors(cmap),
            seed=0,
            epochs=1,
            steps=STEPS,
            images=STEPS * batch,
            log=lambda row: None,
        )
    )


def stepper(
    network: nn.Module, watching: PruningObserver | None, images: Tensor, labels: Tensor
) -> Step:
    """Returns a function that does one training step as the training loop does."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    network.train()
    if watching is not None:
        watching.start(network, optimizer)
    done = 0

    def learn() -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        torch.autograd.backward(loss)
        moment = Moment(0, done, STEPS, labels, len(labels))
        if watching is not None:
            watching.after_backward(moment)
        optimizer.step()
        if watching is not None:
            watching.after_step(moment)

    def step(replays: Replays | None) -> None:
        nonlocal done
        begin = partial(watching.before_step, 0, done, len(labels)) if watching else None
        if begin:
            begin()
        if replays is None:
            learn()
        else:
            replays.do(kind(watching, done), learn, begin)
        done += 1

    return step


def kind(watching: PruningObserver | None, step: int) -> Hashable | None:
    """Returns a key that is equal for equal work; None for work that does not recur."""
    if watching is None:
        return "plain"
    return watching.repeats(0, step, STEPS) if isinstance(watching, RepeatingObserver) else None


def watchers(model: str, network: nn.Module, batch: int) -> dict[str, PruningObserver | None]:
    """Returns name of the variant -> observer, for plain steps and for recorded ones."""
    found: dict[str, PruningObserver | None] = {}
    for recorded, draws in ((False, DRAWS), (True, BETWEEN[model])):
        aofp = partial(observer, "aofp", network, batch, draws_per_half=draws)
        rest = ", recorded" if recorded else ""
        found[PLAIN[recorded]] = None
        found["aofp" + rest] = aofp()
        found["aofp, half of the batch" + rest] = aofp(score_samples=batch // 2)
        found["cac" + rest] = observer("cac", network, batch)
    return found


def variants(model: str, images: Tensor, labels: Tensor) -> dict[str, Variant]:
    """Returns the variants that the device and their first step allow."""
    network = option("model", model, ModelSpec).build((3, 32, 32), 10)
    found = {}
    for name, watching in watchers(model, network, len(labels)).items():
        recorded = name.endswith("recorded")
        if recorded and not images.is_cuda:
            continue
        own = deepcopy(network).to(images.device).to(memory_format=torch.channels_last)
        step = stepper(own, watching, images, labels)
        step(None)  # warm up
        if watching and recorded:
            watching.before_step(0, 1, len(labels))
            if kind(watching, 1) is None:
                continue
        count = HALVES[model] * (BETWEEN[model] if recorded else DRAWS)
        found[name] = Variant(step, count, recorded)
    return found


def main() -> None:
    """Times all variants on each model."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(HALVES), choices=list(HALVES))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, 32, 32, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (options.batch,), device=device)
    title = f"Steps that prune, batch {options.batch}"
    rows: list[Row] = []
    for model in options.models:
        ways = variants(model, images, labels)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                taken[name].append(way.seconds(device))
        rows += table(model, ways, taken)
        write(options, title, ABOUT, rows, str(device))  # now: the next model may not finish
    publish(options, title, ABOUT, rows, str(device))


def table(model: str, ways: dict[str, Variant], taken: dict[str, list[float]]) -> list[Row]:
    """Returns a row for each variant but the plain ones, with its seconds of each round."""
    rows: list[Row] = []
    for name, way in ways.items():
        plain, times = taken[PLAIN[way.recorded]], taken[name]
        if times is not plain:
            ratios = [t / bare for t, bare in zip(times, plain, strict=True)]
            rows.append(
                {
                    "model": model,
                    "criterion": name,
                    "plain step, ms": 1e3 * median(plain),
                    "with it, ms": 1e3 * median(times),
                    "times the time": median(ratios),
                }
            )
    return rows


if __name__ == "__main__":
    main()
