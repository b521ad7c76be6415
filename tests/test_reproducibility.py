"""Seeds never change, and settings are restored."""

import subprocess
import sys

import torch

from prunebench.reproducibility import cuda_math, generator, seed_for


def test_seeds_are_the_same_for_good() -> None:
    # sha256 of '[0]' and '[7, "baseline", "epoch", 3]': first 8 bytes, halved
    assert seed_for(0) == 0xD0BCA111F8628137 >> 1
    assert seed_for(7, "baseline", "epoch", 3) == 0x13B601456D6F3FE4 >> 1


def test_seeds_tell_parts_apart() -> None:
    seeds = [
        seed_for(0), seed_for(1), seed_for(0, "a"), seed_for(0, "b"), seed_for(0, "a", "b"),
        seed_for(0, "ab"), seed_for(0, 1), seed_for(0, "1"), seed_for(0, "a", 1, 2),
        seed_for(0, "a", 12), seed_for(0, "a", 2, 1),
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_follow_their_seed() -> None:
    first = torch.rand(5, generator=generator(1, "x"))
    assert torch.equal(first, torch.rand(5, generator=generator(1, "x")))
    assert not torch.equal(first, torch.rand(5, generator=generator(1, "y")))


def test_importing_does_not_import_torch() -> None:
    modules = "prunebench.reproducibility, prunebench.tracking.progress"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_cuda_settings_are_put_back() -> None:
    def now() -> tuple[bool, bool, str]:
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, cudnn.benchmark, torch.get_float32_matmul_precision()

    before = now()
    with cuda_math(exact=False):
        assert now() == (True, False, "high")
    with cuda_math(exact=False, timed=True):
        assert now() == (True, True, "high")
        with cuda_math(exact=True):
            assert now() == (False, False, "highest")
        assert now() == (True, True, "high")
    assert now() == before
