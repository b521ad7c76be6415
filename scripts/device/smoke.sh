#!/bin/bash
# Seven minutes on a bare GPU machine, see prepare.sh: do the GPU's tests pass, and what does a step cost?
#   bash scripts/device/smoke.sh [PART ...]      of: tests parts shared pruning loops loader; all if none is named
# MODELS="vgg16" before it: of these networks alone
# Each answer lies under $OUT as soon as it is there; what fails does not keep the rest from running.
set -u
. scripts/device/enter.sh
if [ -n "$REHEARSAL" ]; then
  marked='not slow and not gpu' models=resnet20 sizes='--images 128 --batch 64 --repeats 1'
else
  marked=gpu models=${MODELS:-vgg16 resnet20} sizes='--images 25600 --repeats 1'
fi

found=$WORK/found
mkdir -p "$found"

timed() { # NAME SECONDS COMMAND...: its output goes to NAME.txt in what comes back
  local name=$1 limit=$2 code=0
  shift 2
  timeout --signal=INT --kill-after=5 "$limit" "$@" >"$found/$name.txt" 2>&1 || code=$?
  say "$name: exit code $code"
  tail -n 14 "$found/$name.txt"
  tar -czf "$WORK/found.new" -C "$found" . && mv "$WORK/found.new" "$OUT/found.tar.gz"
}

bench() { # SECONDS NAME SCRIPT OPTIONS...
  local limit=$1 name=$2 script=$3
  shift 3
  timed "$name" "$limit" "$PYTHON" "scripts/bench/$script.py" "$@" --out "$found/$name.json"
}

asked=" ${*:-tests parts shared pruning loops loader} "

wants() { # PART
  [[ "$asked" == *" $1 "* ]]
}

if wants tests; then
  if wants parts && [ -z "$REHEARSAL" ]; then # what takes a minute to compile is kept on disk
    "$PYTHON" scripts/bench/recorded_step.py --model vgg16 --inductor default --compile-only >/dev/null 2>&1 &
  fi
  # what other versions of a library warn of is no failure here
  timed tests 60 "$PYTHON" -m pytest -v -W default --timeout 30 -p no:cacheprovider -m "$marked" \
    tests/training/test_recorded_on_cuda.py tests/training/test_recorded.py tests/training/test_loop.py \
    tests/training/test_streamed.py
  wait
fi
if wants parts; then # what the parts of a step take, and what other ways of doing them do
  for model in $models; do
    more=${REHEARSAL:+--batch 4 --replays 1}
    if [ "$model" = vgg16 ]; then more='--inductor default'; fi
    bench 90 "parts_$model" recorded_step --model "$model" $more
  done
fi
if wants shared; then # do runs that share the device get more done, and with MPS?
  bench 60 shared shared_gpu ${REHEARSAL:+--model resnet20 --batch 4 --processes 1 2 --seconds 1}
  if [ -z "$REHEARSAL" ]; then
    mps
    bench 70 shared_mps shared_gpu --processes 1 2 4 6
    no_mps
  fi
fi
if wants pruning && [ -z "$REHEARSAL" ]; then
  bench 90 pruning pruning_during_training --rounds 1
fi
if wants loops; then
  for model in $models; do
    timed "profile_$model" 30 "$PYTHON" scripts/bench/training_step.py --model "$model" $sizes \
      --profile "$found/kernels_$model.txt"
    bench 50 "step_$model" training_step --model "$model" $sizes
  done
fi
if wants loader && [ -z "$REHEARSAL" ]; then
  bench 40 loader cifar_loader --model vgg16 $sizes
fi
say "done"
