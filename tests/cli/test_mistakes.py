"""Every mistake of a user's gives one line with the valid choices, and exit code 2."""

import pytest

#: what is typed, and what the answer must contain; torch cannot be imported meanwhile
TORCH_FREE = [
    (["criterion=foda"], ["'criterion=foda' is not known", "foad", "did you mean 'foad'?"]),
    (["critrion=foad"], ["'critrion' is not known", "did you mean 'criterion'?"]),
    (["criterion.tt=1"], ["'criterion.tt' is not known", "valid: ", "rule"]),
    (["+criterion.tt=1"], ["'criterion.tt' is not known", "valid: ", "rule"]),
    (["+budget.x=1"], ["'budget.x' is not known"]),
    (["+nonsense=1"], ["'nonsense' is not known", "criterion"]),
    (["run.sed=1"], ["'run.sed' is not known", "did you mean 'seed'?"]),
    (["+recipe.finetune.epoch=1"], ["'recipe.finetune.epoch' is not known", "epochs"]),
    (["recipe.finetune.epoch=1"], ["'recipe.finetune.epoch' is not known", "mean 'epochs'?"]),
    (["recipe/phase=sgd"], ["recipe/phase", "recipe/phase@recipe.baseline"]),
    (["recipe/phase@recipe.baseline=adam"], ["'recipe/phase=adam' is not known", "valid: sgd"]),
    (["run.seed=abc"], ["run.seed must be an integer; got 'abc'"]),
    (["run.seed=null"], ["run.seed must be an integer; got null"]),
    (["run.threads=1.5"], ["run.threads must be an integer; got 1.5; null is allowed too"]),
    (["run.threads=100000"], ["run: threads must be null or from 1 to 1024, got 100000"]),
    (["run.resume=maybe"], ["run.resume must be true or false; got 'maybe'"]),
    (["run.device=[cpu]"], ["run.device must be a text; got ['cpu']"]),
    (["criterion.t=abc"], ["criterion.t must be an integer; got 'abc'"]),
    (["budget.exclude=conv1"], ["must be a list of texts, such as budget.exclude=[conv1]; got"]),
    (["budget.exclude=[[conv1]]"], ["must be a list of texts", "got [['conv1']]"]),
    (["budget.exclude={conv1:1}"], ["budget.exclude holds a list: budget.exclude=[...]"]),
    (["budget.exclude=[1.10]"], ["1.1 was read as a number", 'budget.exclude=["1.1"]\'']),
    (["budget=per_layer", "budget.keep={1.10: 0.5}"], ["1.1 was read as a number", "star, 1.1*"]),
    (["recipe.finetune=[1]"], ["recipe.finetune holds keys and values"]),
    (["dataset.mean=[a]"], ["dataset.mean must be a list of numbers, such as dataset.mean=[0.5]"]),
    (["budget=per_layer", "budget.keep=0.25"], ["names with numbers", "keep={conv1:0.25}; got"]),
    (["name=[a]"], ["name must be a text"]),
    (["dataset.root=/nowhere"], ["/nowhere", "dataset.download=true", "dataset.root"]),
    (["dataset.root=data"], ["is not in data", "dataset.download=true", "dataset.root"]),
    (["dataset=mnist"], ["mnist is not in data", "dataset.download=true", "dataset.root"]),
    (["dataset=npz", "dataset.path=no.npz"], ["dataset.path: there is no file no.npz"]),
    (["dataset=digits", "model=found", "model.report=no.json"], ["model.report: there is no file"]),
    (["baseline.checkpoint=no.pth"], ["baseline.checkpoint: there is no file no.pth"]),
    (["criterion.t=-1"], ["criterion: t must"]),
    (["criterion.rule=v2024"], ["criterion: rule must be one of", "v2022", "v2023", "strict"]),
    (["budget=uniform", "budget.keep=1.5"], ["budget: keep must", "1.5"]),
    (["budget=uniform", "budget.keep=0"], ["budget: keep must"]),
    (["budget.scope=outer"], ["budget: scope must be one of inner, all; got 'outer'"]),
    (["recipe.finetune.lr=0"], ["recipe", "lr must be positive"]),
    (["run.device=gpu"], ["run: device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
    (["run.compile=yes"], ["run: compile must be one of auto, on, off; got 'yes'"]),
    (["criterion=3"], ["criterion=3: a group needs an option"]),
    (["criterion=null"], ["criterion=null: a group needs an option"]),
    (["criterion=l1"], ["budget=own takes the criterion's own decision", "budget=uniform"]),
    (["schedule=iterative"], ["budget=own has no target", "schedule=oneshot"]),
    (["experiment=nope"], ["'experiment=nope' is not known", "quickstart"]),
    (["method=foa"], ["'method=foa' is not known", "did you mean 'foad'?"]),
    (["criterion._target_=os.system"], ["criterion._target_: os.system is not a Criterion"]),
    (["criterion._target_=prunebench.nothing.X"], ["criterion._target_: cannot find"]),
    (["recipe.baseline.lr=1e400"], ["recipe.baseline.lr must be finite, got inf"]),
    (["dataset.mean=[nan,0.5,0.5]"], ["dataset.mean must be finite, got nan"]),
    (["run.outputs=/proc/x"], ["cannot write /proc/x", "choose another run.outputs=FOLDER"]),
    (["run.outputs=/etc/passwd"], ["cannot write /etc/passwd", "run.outputs=FOLDER"]),
    (["run.outputs='~/x'"], ["run.outputs, hydra.run.dir and", "do not expand ~"]),
    (["hydra.run.dir='~/x'"], ["do not expand ~; type $HOME"]),
    (["run.outputs='~/x'", "hydra.run.dir=y"], ["outputs=~/x would create a folder named ~"]),
    (["hydra/job_logging=disabled", "run.seed=-1"], ["run: seed must not be negative"]),
    (["-m", "hydra.launcher._target_=os.system", "run.seed=0,1"], ["accept only Hydra plugins"]),
    (["-m", "run.outputs=/etc/passwd", "run.seed=0,1"], ["cannot write /etc/passwd"]),
    (
        ["experiment=aofp_digits", "dataset=cifar10"],
        ["'dataset.size' is not known", "; experiment=aofp_digits sets it, for another dataset"],
    ),
    (
        ["experiment=cac_lenet_300_100", "method=sfp"],
        ["in place of both, type: model=lenet_300_100 dataset=mnist recipe=mnist method=sfp"],
    ),
    (["model=vgg16", "foad"], ["'foad' is not key=value; did you mean criterion=foad"]),
    (["criterion.t="], ["criterion.t"]),
]


@pytest.mark.parametrize(("typed", "parts"), TORCH_FREE, ids=lambda value: " ".join(value))
def test_a_mistake_is_one_line(torch_free, tmp_path, typed, parts):
    (tmp_path / "data").mkdir()
    done = torch_free.run("-m", "prunebench", *typed, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("prunebench: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr
    assert not done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_option_in_another_encoding_is_one_line(torch_free, tmp_path):
    (tmp_path / "criterion").mkdir()
    (tmp_path / "criterion" / "mine.yaml").write_bytes("_target_: a.É".encode("latin-1"))
    done = torch_free.run("-m", "prunebench", "--config-dir", ".", "criterion=mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "an option's YAML is not UTF-8 (" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (["dataset=digits", "+model.wdth=2"], ["'model.wdth' is not known", "width"]),
        (["dataset=digits", "model.width=-1"], ["model: width must be positive"]),
        (["dataset=digits", "dataset.size=8"], ["VGG needs images of at least 16 x 16"]),
        (["run.device=cuda:7", "dataset=digits"], ["run.device=cuda:7", "run.device=cpu"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_that_shows_later_is_one_line_too(prunebench, tmp_path, typed, parts):
    done = prunebench(*typed)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("prunebench: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in last


@pytest.mark.parametrize("typed", ["criterion=foda", "criterion.t=-1"])
def test_full_errors_keep_their_traceback(torch_free, tmp_path, typed):
    done = torch_free.run("-m", "prunebench", typed, cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
