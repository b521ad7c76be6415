#!/bin/sh
# Runs one-shot criteria at a MACs target on a public checkpoint (akamaster/pytorch_resnet_cifar10), with
# one short epoch of fine-tuning. On one core a seed takes about 10 minutes for resnet20 and 25 for resnet56.
# The oracle is not among the default criteria: it takes 4 and 22 minutes, growing with the square of the depth.
# Arguments: model, checkpoint, share of the MACs, seeds, criteria, and settings for every run.
#   sh scripts/reproduce/criteria_checkpoint.sh resnet20 resnet20-12fca82f.th 0.5 0,1,2
#   sh scripts/reproduce/criteria_checkpoint.sh resnet20 resnet20-12fca82f.th 0.5 0 oracle criterion.change=rise
set -eu
model=$1 checkpoint=$2 keep=$3 seeds=$4
criteria=${5:-random,l1,l2,fpgm,foad,thinet,thinet_tpami,apoz,hrank,taylor,slimming,bn_probability}
shift $(($# < 5 ? $# : 5))
prunebench -m model="$model" baseline.checkpoint="$checkpoint" name="criteria_$model" run.threads=1 \
  'dataset.mean=[0.485,0.456,0.406]' 'dataset.std=[0.229,0.224,0.225]' \
  dataset.train_size=10000 dataset.val_size=500 \
  recipe=short recipe.finetune.epochs=1 recipe.finetune.lr=0.01 budget=macs budget.keep="$keep" \
  criterion="$criteria" run.seed="$seeds" "$@"
