#!/bin/sh
# Runs DCPH and its controls over seeds, and prints the table of all runs.
# All train equally long: the plain network and the found structure are trained through the tail, too.
#   sh scripts/reproduce/dcph.sh dcph_lenet_300_100 'model.widths=[300,100]' mnist mnist "0 1 2"
#   sh scripts/reproduce/dcph.sh dcph_resnet20 model.width=1 cifar10 cac "0 1 2"
set -eu
experiment=$1 plain=$2 dataset=$3 recipe=$4 seeds=$5
shift 5 # further arguments are settings for every run (not of criterion or budget)
for seed in $seeds; do
  run() {
    kind=$1
    shift
    prunebench run.seed="$seed" name="$experiment-$kind-$seed" "$@"
  }
  run cac experiment="$experiment" "$@"
  run l1 experiment="$experiment" criterion=l1 schedule=oneshot "$@"
  run random experiment="$experiment" criterion=random schedule=oneshot "$@"
  run plain experiment="$experiment" "$plain" criterion=random schedule=oneshot \
    budget.macs=1 budget.params=1 "$@"
  report=$(ls -t outputs/"$experiment-cac-$seed"/*/report.json | head -1)
  run found model=found model.report="$report" dataset="$dataset" recipe="$recipe" \
    criterion=random schedule=oneshot budget=uniform budget.keep=1 "$@"
done
prunebench table outputs/"$experiment"-*
