#!/bin/bash
# Five minutes on a bare GPU machine, see prepare.sh: do the GPU's tests pass, and what does a step cost?
# Each answer lies under $OUT as soon as it is there; what fails does not keep the rest from running.
set -u
. scripts/device/enter.sh
if [ -n "$REHEARSAL" ]; then
  marked='not slow and not gpu' models=resnet20 sizes='--images 128 --batch 64 --repeats 1'
else
  marked=gpu models='vgg16 resnet20' sizes='--images 25600 --repeats 1'
fi

timed() { # NAME SECONDS COMMAND...: its output goes to $OUT/NAME.txt
  local name=$1 limit=$2 code=0
  shift 2
  timeout --signal=INT --kill-after=5 "$limit" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
  say "$name: exit code $code"
  tail -n 14 "$OUT/$name.txt"
}

# what other versions of a library warn of is no failure here
timed tests 60 "$PYTHON" -m pytest -v -W default --timeout 30 -p no:cacheprovider -m "$marked" \
  tests/training/test_recorded_on_cuda.py tests/training/test_recorded.py tests/training/test_loop.py \
  tests/training/test_streamed.py
for model in $models; do
  timed "profile_$model" 30 "$PYTHON" scripts/bench/training_step.py --model "$model" $sizes \
    --profile "$OUT/profile_$model.txt"
  timed "step_$model" 50 "$PYTHON" scripts/bench/training_step.py --model "$model" $sizes --out "$OUT/step_$model.json"
done
# what the parts of a step take, and what other ways of doing them do
for model in $models; do
  more=${REHEARSAL:+--batch 4 --replays 1}
  if [ "$model" = vgg16 ]; then more='--inductor default'; fi # takes a minute to compile
  timed "parts_$model" 80 "$PYTHON" scripts/bench/recorded_step.py --model "$model" $more --out "$OUT/parts_$model.json"
done
[ -n "$REHEARSAL" ] || timed pruning 40 "$PYTHON" scripts/bench/pruning_during_training.py --rounds 2 --out "$OUT/pruning.json"
[ -n "$REHEARSAL" ] || timed loader 30 "$PYTHON" scripts/bench/cifar_loader.py --model vgg16 $sizes --out "$OUT/loader.json"
say "done"
