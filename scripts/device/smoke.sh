#!/bin/bash
# Two minutes on a bare GPU machine, see prepare.sh: do the GPU's tests pass, and what does a step cost?
# Each answer lies under $OUT as soon as it is there; what fails does not keep the rest from running.
set -u
. scripts/device/enter.sh
if [ -n "$REHEARSAL" ]; then
  marked='not slow and not gpu' sizes='--images 256 --repeats 1'
else
  marked=gpu sizes='--images 12800 --repeats 3'
fi

timed() { # NAME SECONDS COMMAND...: its output goes to $OUT/NAME.txt
  local name=$1 limit=$2 code=0
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
  say "$name: exit code $code"
  tail -n 12 "$OUT/$name.txt"
}

timed step 45 "$PYTHON" scripts/bench/training_step.py $sizes
timed tests 75 "$PYTHON" -m pytest -q -p no:cacheprovider -m "$marked" tests/training/test_loop.py
say "done"
