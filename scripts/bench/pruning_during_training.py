"""What pruning during training costs per step: AOFP's scoring and CAC's gates against a plain step.

    python scripts/bench/pruning_during_training.py [--batch 64] [--rounds 5] [--device cpu]

AOFP is averaged over a failing move of its widest layer: every half from all channels down to two,
one draw per step, a few draws per half. CAC draws its gates and adds to its estimates at every
step. All variants take their steps in turn in one run; each figure is the median over the rounds,
in CPU time (wall time on CUDA). `aofp_half_batch.py`: what half of the batch does to the scores.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median

import torch
from result import Row, arguments, publish
from torch import Tensor, nn
from torch.nn import functional

from prunebench.budgets import Budget
from prunebench.channels import trace
from prunebench.contracts import Assignment, Moment, PruningObserver
from prunebench.criteria import TrainingCriterion
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.run.step import dense_counts

ABOUT = """A training step with the criterion looking on, against the same step of plain PyTorch
(forward, loss, backward, SGD). AOFP scores every layer at every step, averaged over a search
from all channels down to two; CAC draws gates at every step. CPU time of one thread, medians of
rounds taken by turns."""
#: halves of a failing move over 512 and 64 channels
HALVES = {"vgg16": 9, "resnet56": 6}
#: per half; the authors take 1000, so deciding costs more here than it does there
DRAWS = 5
#: of one training, far more than are timed
STEPS = 10_000


def observer(criterion: str, network: nn.Module, batch: int, **settings: object) -> PruningObserver:
    """The criterion's observer, which never prunes here; `settings` are changed."""
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
) -> Callable[[], None]:
    """Returns a function that does one training step as the loop does."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    network.train()
    if watching is not None:
        watching.start(network, optimizer)
    done = 0

    def step() -> None:
        nonlocal done
        if watching is not None:
            watching.before_step(0, done, len(labels))
        loss = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        moment = Moment(0, done, STEPS, labels, len(labels))
        if watching is not None:
            watching.after_backward(moment)
        optimizer.step()
        if watching is not None:
            watching.after_step(moment)
        done += 1

    return step


def seconds(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds per step."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / count


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
    rows: list[Row] = []
    for model in options.models:
        network = option("model", model, ModelSpec).build((3, 32, 32), 10)
        watchers: dict[str, PruningObserver | None] = {
            "plain step": None,
            "aofp": observer("aofp", network, options.batch),
            "aofp, half of the batch": observer(
                "aofp", network, options.batch, score_samples=options.batch // 2
            ),
            "cac": observer("cac", network, options.batch),
        }
        steps = {}
        for name, watching in watchers.items():
            own = deepcopy(network).to(device).to(memory_format=torch.channels_last)
            steps[name] = stepper(own, watching, images, labels)
            steps[name]()  # warm up
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            for name, step in steps.items():
                taken[name].append(seconds(step, DRAWS * HALVES[model], device))
        plain = taken.pop("plain step")
        for name, times in taken.items():
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
    publish(options, f"Steps that prune, batch {options.batch}", ABOUT, rows)


if __name__ == "__main__":
    main()
