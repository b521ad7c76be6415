#!/bin/bash
# Runs the GPU tests and measures the cost of a step on a GPU machine, in nine minutes; see prepare.sh.
#   bash scripts/device/smoke.sh [PART ...]
#     PART: tests runs inductor parts shared pruning profile loops loader; default: all
#     (inductor: parts compiles vgg16, too)
# MODELS="vgg16" before it measures only these networks.
# Each result is in $OUT as soon as it is known; after a failure the other parts still run.
set -u
. scripts/device/enter.sh
if [ -n "$REHEARSAL" ]; then
  marked='not slow and not gpu' processes=2 whole_runs='' models=resnet20 sizes='--images 128 --batch 64 --repeats 1'
else
  marked=gpu processes=12 whole_runs='' models=${MODELS:-vgg16 resnet20} sizes='--images 25600 --repeats 1'
fi

found=$WORK/found
mkdir -p "$found"

timed() { # NAME SECONDS COMMAND...: runs it with a time limit; its output goes to NAME.txt in OUT
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

asked=" ${*:-tests runs inductor parts shared pruning profile loops loader} "

wants() { # PART
  [[ "$asked" == *" $1 "* ]]
}

if wants tests; then
  if wants inductor && [ -z "$REHEARSAL" ]; then # compiling takes a minute: do it beside the tests
    "$PYTHON" scripts/bench/recorded_step.py --model vgg16 --inductor default --compile-only >/dev/null 2>&1 &
  fi
  "$PYTHON" -c 'import xdist' 2>/dev/null || processes=''
  if wants runs; then whole_runs=tests/test_on_cuda.py; fi # criteria and methods: two minutes more
  # warnings of other versions of a library are not failures here
  timed tests 200 "$PYTHON" -m pytest -v -W default --timeout 180 -p no:cacheprovider -m "$marked" ${processes:+-n $processes} \
    $whole_runs tests/training/test_recorded_on_cuda.py tests/training/test_recorded.py \
    tests/training/test_loop.py tests/training/test_streamed.py
  wait
fi
if wants parts; then # times of the parts of a step, and of other ways to do them
  for model in $models; do
    more=${REHEARSAL:+--batch 4 --replays 1}
    if [ "$model" = vgg16 ] && wants inductor; then more='--inductor default'; fi
    bench 90 "parts_$model" recorded_step --model "$model" $more
  done
fi
if wants shared; then # throughput of several runs on one GPU, without and with MPS
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
if wants profile; then
  for model in $models; do
    timed "profile_$model" 30 "$PYTHON" scripts/bench/training_step.py --model "$model" $sizes \
      --profile "$found/kernels_$model.txt"
  done
fi
if wants loops; then
  for model in $models; do
    bench 50 "step_$model" training_step --model "$model" $sizes
  done
fi
if wants loader && [ -z "$REHEARSAL" ]; then
  bench 40 loader cifar_loader --model vgg16 $sizes
fi
say "done"
