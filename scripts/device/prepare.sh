#!/bin/sh
# Collects in build/device, which git ignores, what a GPU machine without a network needs to run prunebench
# if it only has Python 3.11 to 3.13 and PyTorch: wheels/ of pure Python, and in 1/ and 2/ the data set in
# two parts that are joined there (CIFAR-10: 50 MB each). Checkpoints to start from go into 2/.
#   sh scripts/device/prepare.sh ARCHIVE.npz [CHECKPOINT ...]        ARCHIVE: cifar10.npz as dataset=cifar10 reads it
# Then run on that machine, with results in $OUT (default: build/device/out):
#   with build/device/wheels and build/device/1 copied   bash scripts/device/smoke.sh       nine minutes
#   with build/device/2 copied to the same machine       bash scripts/device/results.sh     the rest
# Called again, the second continues where it stopped. To rehearse on a CPU, put REHEARSAL=1 before each.
set -eu
archive=$1
shift
python=${PYTHON:-.venv/bin/python}
target=build/device
rm -rf "$target"
mkdir -p "$target/wheels"
"$python" -m pip wheel -q --no-deps -c constraints.txt -w "$target/wheels" \
  hydra-core omegaconf antlr4-python3-runtime fvcore iopath yacs termcolor filelock airbench==0.1.8
if ls "$target"/wheels/*.whl | grep -v -- '-none-any\.whl$'; then
  echo "these wheels are of this machine's kind only" >&2
  exit 1
fi
"$python" scripts/device/parts.py pack "$archive" "$target"
for checkpoint in "$@"; do
  cp "$checkpoint" "$target/2/"
done
du -sh "$target"/*
