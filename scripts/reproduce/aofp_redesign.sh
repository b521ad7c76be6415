#!/bin/sh
# Destructive re-design over seeds: AOFP's widths scaled back to the original MACs and trained as the
# baseline was, beside the original (every run's baseline), the pruned and fine-tuned network, the
# pruned structure from scratch and the original scaled down uniformly to about the same MACs.
#   sh scripts/reproduce/aofp_redesign.sh vgg16 cifar10 aofp aofp 0.63 "0 1 2"
#   sh scripts/reproduce/aofp_redesign.sh vgg16 digits aofp_quick quick 0.7 "0" dataset.size=16
set -eu
model=$1 dataset=$2 method=$3 recipe=$4 uniform=$5 seeds=$6
shift 6 # what follows is passed on to every run: nothing of the criterion or budget
for seed in $seeds; do
  run() {
    kind=$1
    shift
    prunebench name="redesign-$model-$kind-$seed" run.seed="$seed" \
      dataset="$dataset" recipe="$recipe" "$@"
  }
  keep="criterion=random schedule=oneshot budget=uniform budget.keep=1 recipe.finetune.epochs=0"
  run aofp model="$model" method="$method" "$@"
  report=$(ls -t outputs/"redesign-$model-aofp-$seed"/*/report.json | head -1)
  run redesigned model=found model.report="$report" model.macs=1.0 $keep "$@"
  run found model=found model.report="$report" $keep "$@"
  run uniform model="$model" model.width="$uniform" $keep "$@"
done
prunebench-table outputs/"redesign-$model"-*
