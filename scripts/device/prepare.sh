#!/bin/sh
# Everything a bare GPU machine with Python 3.11 to 3.13 and PyTorch, but without a network, lacks to run
# prunebench, in a folder git ignores: wheels/ of pure Python; 1/ and 2/, the data set in two parts that
# join outside the tree (CIFAR-10: 51 MB each). A checkpoint to start from goes into 1/ as well.
#   sh scripts/device/prepare.sh ARCHIVE.npz [CHECKPOINT ...]        ARCHIVE: cifar10.npz as dataset=cifar10 reads it
# Then, on that machine, with results under $OUT (build/device/out if it is not set):
#   carrying build/device/wheels and build/device/1      bash scripts/device/smoke.sh       seven minutes
#   carrying build/device/wheels and build/device/2      bash scripts/device/results.sh     the rest
# The second goes on where it was when it is called again. Rehearsal on a CPU: REHEARSAL=1 before each.
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
  cp "$checkpoint" "$target/1/"
done
du -sh "$target"/*
