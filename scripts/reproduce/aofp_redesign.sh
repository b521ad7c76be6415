#!/bin/sh
# Runs AOFP's network re-design over seeds: AOFP's widths, scaled back to the original MACs and trained like
# the baseline. It is compared with the original (every run's baseline), the pruned and fine-tuned network,
# the pruned structure trained from scratch, and the original scaled down uniformly to about the same MACs.
# Arguments: model, its width, the uniform one's width, dataset, method, recipe, seeds, and settings
# for every run (not of criterion or budget).
#   sh scripts/reproduce/aofp_redesign.sh vgg16 1 0.59 cifar10 aofp aofp "0 1 2"
#   sh scripts/reproduce/aofp_redesign.sh vgg16 0.25 0.18 digits aofp_quick quick "0" dataset.size=16
set -eu
model=$1 width=$2 uniform=$3 dataset=$4 method=$5 recipe=$6 seeds=$7
shift 7
for seed in $seeds; do
  run() {
    kind=$1
    shift
    prunebench name="redesign-$model-$kind-$seed" run.seed="$seed" "$@"
  }
  keep="criterion=random schedule=oneshot budget=uniform budget.keep=1 recipe.finetune.epochs=0"
  set -- dataset="$dataset" recipe="$recipe" "$@"
  run aofp model="$model" model.width="$width" method="$method" "$@"
  report=$(ls -t outputs/"redesign-$model-aofp-$seed"/*/report.json | head -1)
  run redesigned model=found model.report="$report" model.macs=1.0 "$@" $keep
  run found model=found model.report="$report" "$@" $keep
  run uniform model="$model" model.width="$uniform" "$@" $keep
  shift 2
done
prunebench table outputs/"redesign-$model"-*
