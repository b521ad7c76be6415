#!/bin/bash
# Runs experiments on a GPU machine once smoke.sh has passed, the most valuable first; see prepare.sh.
#   bash scripts/device/results.sh [SECONDS [JOBS]]      time limit (570 s), and jobs at once (6)
# Called again, it continues where it stopped: every job resumes in its own folder below $WORK/outputs.
# After each job $OUT has a table of all jobs, and an archive of all reports and logs.
# Put COMPILE=off before it if smoke.sh's tests of recorded steps fail, and ALONE=1 to time one run first.
set -u
. scripts/device/enter.sh
seconds=${1:-570} jobs=${2:-6}

keep() { # updates the results in OUT; mv replaces each file at once, so that it is always whole
  (cd "$WORK/outputs" && find . -name report.json -o -name metrics.jsonl -o -name failure.json) |
    tar -czf "$WORK/reports.$1" -C "$WORK/outputs" -T - && mv "$WORK/reports.$1" "$OUT/reports.tar.gz"
  COLUMNS=200 "$PYTHON" -m prunebench table "$WORK/outputs" >"$WORK/table.$1" 2>/dev/null &&
    mv "$WORK/table.$1" "$OUT/table.txt"
}

carry_out() { # NAME WORDS...: runs a job unless it is done; SIGTERM at the time limit lets it save
  local name=$1 folder=$WORK/outputs/$1 begun left code=0
  shift
  begun=$(date +%s)
  left=$((started + seconds - 15 - begun))
  [ -e "$folder/report.json" ] && return
  [ "$left" -lt 20 ] && { say "$name: no time is left"; return; }
  timeout --signal=TERM --kill-after=10 "$left" "$PYTHON" -m prunebench name="$name" \
    run.outputs="$WORK/outputs" hydra.run.dir="$folder" dataset.root="$WORK/data" run.threads=1 \
    run.compile="${COMPILE:-auto}" run.checkpoint_seconds=30 $small "$@" $tiny >>"$WORK/logs/$name.txt" 2>&1 || code=$?
  say "$name: exit code $code after $(($(date +%s) - begun)) s: $(tail -n 1 "$WORK/logs/$name.txt")"
  keep "$name"
}

job() { # NAME WORDS...: the same in the background, at most $jobs at once
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  carry_out "$@" &
}

half=recipe.precision=bf16
small='' tiny=''
if [ -n "$REHEARSAL" ]; then
  small=model.width=0.25
  tiny='dataset.val_size=20 recipe.baseline.epochs=1 recipe.baseline.warmup_epochs=0
    recipe.finetune.epochs=1 recipe.pruning.warmup_epochs=0 recipe.pruning.epochs=2'
  quick='criterion.n_min=2 criterion.prune_every=1 criterion.max_step=1 criterion.end=0.9 recipe.pruning.epochs=8
    recipe.pruning.batch_size=8'
fi
checkpoint=$(ls "$WORK"/parts/resnet56*.th 2>/dev/null | head -n 1)
sweep='model=resnet56 recipe=short recipe.finetune.epochs=40 recipe.finetune.batch_size=256 budget.keep=0.5'
if [ -n "$checkpoint" ]; then # a public one, trained with this normalisation
  sweep="$sweep baseline.checkpoint=$checkpoint dataset.mean=[0.485,0.456,0.406] dataset.std=[0.229,0.224,0.225]"
  sweep="$sweep${REHEARSAL:+ model.width=1}"
else
  sweep="$sweep recipe.baseline.epochs=60"
fi

foad="model=vgg16 method=foad $half"
if [ -n "${ALONE:-}" ]; then # FOAD on VGG-16 as published, without other jobs, to time it: six minutes on an H200
  carry_out foad_v2022_t2 $foad criterion.rule=v2022 criterion.t=2
fi
mps # from here on jobs share the device
# criteria at half of the MACs with a full fine-tune, and as controls random channels and uniform widths; on an H200
# an epoch of all six takes five seconds
sweep_of() { # SEED
  local criterion
  for criterion in thinet foad taylor hrank fpgm l1 random; do
    job "r56_$criterion-$1" $sweep budget=macs criterion=$criterion run.seed="$1"
  done
  job "r56_uniform-$1" $sweep method=uniform_width run.seed="$1"
}
sweep_of 0
sweep_of 1
sweep_of 2
# rule=v2022 with t=1 cuts like the rule of 2023
job foad_v2023 $foad
# the other methods as published; those on VGG-16 start from FOAD's baseline
same="model=vgg16 recipe=foad $half"
job thinet_vgg16 experiment=thinet_vgg16_cifar10 recipe=foad $half recipe.finetune.epochs=40 ${REHEARSAL:+schedule.epochs=0}
job aofp_vgg16 $same method=aofp recipe.pruning.epochs=200 ${REHEARSAL:+criterion.theta=100 criterion.warmup_steps=0 criterion.draws_per_half=1}
job dcph_resnet20 experiment=dcph_resnet20 $half ${REHEARSAL:+budget.macs=0.9 budget.params=0.9 $quick}
job probability_mobilenet model=mobilenet_v1 method=probability $half
job cac_resnet56 model=resnet56 method=cac $half ${REHEARSAL:+budget.keep=0.9 $quick}
for seed in 1 2; do
  job foad_v2023-$seed $foad run.seed=$seed
  job foad_v2022_t2-$seed $foad criterion.rule=v2022 criterion.t=2 run.seed=$seed
done
wait
keep end
say "done"
