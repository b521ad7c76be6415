#!/bin/sh
# Destructive re-design over seeds: AOFP's widths scaled back to the original MACs and trained as the
# baseline was, beside the original (every run's baseline), the pruned and fine-tuned network, the
# pruned structure from scratch and the original scaled down uniformly to about the same MACs.
#   sh scripts/reproduce/aofp_redesign.sh vgg16 cifar10 aofp 0.63 "0 1 2"
#   sh scripts/reproduce/aofp_redesign.sh vgg16 digits aofp_quick 0.18 "0" dataset.size=16 recipe=quick
set -eu
model=$1 dataset=$2 method=$3 uniform=$4 seeds=$5
shift 5 # what follows is passed on to every run
for seed in $seeds; do
  run() {
    kind=$1
    shift
    prunebench run.seed="$seed" name="redesign-$model-$kind-$seed" dataset="$dataset" "$@"
  }
  keep="criterion=random schedule=oneshot budget=uniform budget.keep=1 recipe.finetune.epochs=0"
  case $method in aofp) recipe=aofp ;; *) recipe=short ;; esac
  run aofp model="$model" method="$method" "$@"
  report=$(ls -t outputs/"redesign-$model-aofp-$seed"/*/report.json | head -1)
  run redesigned model=found model.report="$report" model.macs=1.0 recipe=$recipe $keep "$@"
  run found model=found model.report="$report" recipe=$recipe $keep "$@"
  run uniform model="$model" model.width="$uniform" recipe=$recipe $keep "$@"
done
prunebench-table outputs/"redesign-$model"-*
