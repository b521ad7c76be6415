"""`save` and `load`: the user's own slim networks, without pickle."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

import prunebench
from prunebench.api.files import load, save
from prunebench.channels import GatherChannels, Plan
from prunebench.checkpoints import slimmed
from prunebench.errors import CheckpointError
from prunebench.repairs.shift_fusion import ShiftFusion

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Its forward moves channels by number, so that the slim network has gathers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.c = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x)).relu()
        x = torch.cat([x[:, 4:], x[:, :4]], 1)
        found: Tensor = self.c(self.b(x).relu())
        return found


class Scaled(nn.Module):
    """Takes more than an image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, scale: Tensor, *, invert: bool = False) -> Tensor:
        found: Tensor = self.net(x) * scale
        return -found if invert else found


def test_a_slim_network_comes_back_with_its_weights_plan_and_report(tmp_path: Path) -> None:
    path, model = tmp_path / "slim.pt", Net()
    with torch.no_grad():
        model.a.weight[:3].zero_()  # so that the halves are no longer equally wide
    once = prunebench.prune(model, X, uniform=0.7)
    with torch.no_grad():
        once.a.bias.add_(1.0)  # trained a little
    small = copy.deepcopy(prunebench.prune(once, X, uniform=0.7, steps=2))
    save(small, path)
    dense = Net()
    before = copy.deepcopy(dense.state_dict())
    loaded = load(path, model=dense)
    assert not loaded.training
    assert any(isinstance(module, GatherChannels) for module in loaded.modules())
    assert torch.equal(loaded(X), small.eval()(X))
    assert (loaded.plan, loaded.report) == (small.plan, small.report)
    assert loaded.normalisation is None
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    save(loaded, tmp_path / "again.pt")
    assert torch.equal(load(tmp_path / "again.pt", model=Net())(X), small(X))


def test_no_code_is_in_the_file(tmp_path: Path) -> None:
    save(prunebench.prune(Net(), X), tmp_path / "slim.pt")
    content = torch.load(tmp_path / "slim.pt", weights_only=True)
    assert content["own"] == "Net"
    assert len(content["plans"]) == 1
    assert content["example"].untyped_storage().nbytes() <= 4  # its size alone is kept


def test_several_inputs_and_plain_values_are_remembered(tmp_path: Path) -> None:
    example = {"x": X, "scale": torch.ones(2, 1, 1, 1), "invert": True}
    small = prunebench.prune(Scaled(), example)
    save(small, tmp_path / "slim.pt")
    loaded = load(tmp_path / "slim.pt", model=Scaled())
    assert torch.equal(loaded(**example), small.eval()(**example))


@pytest.mark.parametrize("pruned", [torch.float16, torch.float32])
@pytest.mark.parametrize("dense", [torch.float16, torch.float32])
def test_the_dense_network_may_be_of_another_type(
    tmp_path: Path, pruned: torch.dtype, dense: torch.dtype
) -> None:
    small = prunebench.prune(Net().to(pruned), X.to(pruned))
    save(small, tmp_path / "slim.pt")
    loaded = load(tmp_path / "slim.pt", model=Net().to(dense))
    assert {weight.dtype for weight in loaded.parameters()} == {dense}
    assert torch.equal(loaded.a.weight, small.a.weight.to(dense))


def test_what_else_is_in_an_example_is_asked_for(tmp_path: Path) -> None:
    class Given:
        """Something that a network may be given, and no file should hold."""

    class Odd(Net):
        def forward(self, x: Tensor, given: Given) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    small = prunebench.prune(Odd(), (X, Given()))
    save(small, tmp_path / "slim.pt")
    with pytest.raises(CheckpointError, match="says nothing about the input; give load"):
        load(tmp_path / "slim.pt", model=Odd())
    loaded = load(tmp_path / "slim.pt", model=Odd(), example=(X, Given()))
    assert torch.equal(loaded(X, Given()), small.eval()(X, Given()))


def test_biases_that_a_repair_added_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1))
    nn.init.normal_(model[1].bias)
    small = prunebench.prune(model, X, repair=ShiftFusion(border="map"), images=X)
    save(small, tmp_path / "slim.pt")
    assert torch.equal(load(tmp_path / "slim.pt", model=model)(X), small.eval()(X))


def test_another_network_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "slim.pt"
    save(prunebench.prune(Net(), X), path)
    bare = Net()
    bare.norm = nn.Identity()  # type: ignore[assignment]
    for model, says in (
        (Net(4), "was pruned from another Net than this Net: "),
        (Net(16), "another Net than this Net: group 'a' had 8 channels and has 16 channels here"),
        (bare, "belongs to another network: unknown tensors: 5, first 'norm.weight'"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), "Sequential: group 'a' had 8 .* has no channels"),
        (None, r"holds a Net of your own; pass load\(path, model=...\)"),
    ):
        with pytest.raises(CheckpointError, match=says) as told:
            load(path, model=model)
        assert "\n" not in str(told.value)


def test_files_and_networks_of_other_kinds_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(Net().state_dict(), path)
    with pytest.raises(CheckpointError, match="is cut short, or no checkpoint of prunebench$"):
        load(path, model=Net())
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match=r"this Net does not come from prunebench\.prune"):
        save(Net(), path)
    with pytest.raises(CheckpointError, match="this DataParallel does not .* wrapped in another"):
        save(nn.DataParallel(prunebench.prune(Net(), X)), path)

    class Asking(nn.Module):
        """Has what it holds answer, as many wrappers do."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.inner(x)
            return found

        def __getattr__(self, name: str) -> object:
            return super().__getattr__("inner") if name == "inner" else getattr(self.inner, name)

    with pytest.raises(CheckpointError, match="this Asking does not .* wrapped in another"):
        save(Asking(prunebench.prune(Net(), X)), path)
    again = prunebench.prune(Asking(prunebench.prune(Net(), X)), X)  # whose own beginning is whole
    save(again, path)
    assert torch.equal(load(path, model=Asking(prunebench.prune(Net(), X)))(X), again.eval()(X))

    sharded = prunebench.prune(Net(), X)
    sharded.a.weight = nn.Parameter(TwoTensor(sharded.a.weight.data, sharded.a.weight.data))
    with pytest.raises(CheckpointError, match=r"a\.weight of the network is a TwoTensor, which"):
        save(sharded, path)

    class Noting(nn.ReLU):
        def get_extra_state(self) -> object:
            return {"seen": 3}

        def set_extra_state(self, state: object) -> None:
            return

    with pytest.raises(CheckpointError, match="_extra_state of the network is no tensor"):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), Noting(), nn.Conv2d(8, 4, 1))
        save(prunebench.prune(model, X), path)


def test_a_runs_network_says_how_its_images_are_normalised(tmp_path: Path) -> None:
    section = {"_target_": "prunebench.models.mlp.Mlp", "widths": [6]}
    plan = Plan({"fc1": [1, 4]})
    origin = slimmed.Provenance(section, (1, 2, 2), 3, (plan,), (0.5,), (0.25,))
    small = nn.ModuleDict({"fc1": nn.Linear(4, 2), "fc2": nn.Linear(2, 3)})
    slimmed.save(tmp_path / "slim.pt", small, origin)
    loaded = load(tmp_path / "slim.pt")
    assert (loaded.plan, loaded.report) == (plan, None)
    assert loaded.normalisation == slimmed.Normalisation(mean=(0.5,), std=(0.25,))
    pixels = torch.tensor([0, 255, 51, 102], dtype=torch.uint8).view(1, 1, 2, 2)
    expected = torch.tensor([-2.0, 2.0, -1.2, -0.4]).view(1, 1, 2, 2)
    torch.testing.assert_close(loaded.normalisation(pixels), expected)
    torch.testing.assert_close(loaded.normalisation(pixels / 255), expected)
    for place in (tmp_path, tmp_path / "report.json"):
        assert load(place).plan == plan
    further = prunebench.prune(loaded, torch.randn(2, 1, 2, 2), uniform=0.5)
    assert further.fc1.out_features == 1
    save(further, tmp_path / "further.pt")
    assert load(tmp_path / "further.pt", model=load(tmp_path)).plan == further.plan
    with pytest.raises(CheckpointError, match="comes from a run and is loaded without model="):
        load(tmp_path, model=small)
    with pytest.raises(CheckpointError, match=r"holds no slim.pt; give the folder of a run"):
        load(tmp_path.parent)
