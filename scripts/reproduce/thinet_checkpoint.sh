#!/bin/sh
# Runs the whole of ThiNet, layer by layer with an epoch of 10,000 images after each, with and without its
# least squares, on a public checkpoint (akamaster/pytorch_resnet_cifar10), for each share of MACs to keep.
# A run takes ten epochs of 10,000 images for resnet20, 28 for resnet56.
# Arguments: model, checkpoint, shares of the MACs, seeds, and settings for every run.
#   sh scripts/reproduce/thinet_checkpoint.sh resnet20 resnet20-12fca82f.th 0.7,0.5 0,1,2
set -eu
model=$1 checkpoint=$2 keep=$3 seeds=$4
shift 4
prunebench -m model="$model" baseline.checkpoint="$checkpoint" name="thinet_$model" run.threads=1 \
  'dataset.mean=[0.485,0.456,0.406]' 'dataset.std=[0.229,0.224,0.225]' \
  dataset.train_size=10000 dataset.val_size=500 \
  method=thinet budget=macs budget.keep="$keep" repair=least_squares,none \
  recipe=short recipe.between.lr=0.01 recipe.finetune.epochs=1 recipe.finetune.lr=0.01 \
  run.seed="$seeds" "$@"
