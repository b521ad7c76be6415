#!/bin/sh
# Runs SFP and FPGM on ResNet-20 from scratch as published, but shortened: 15 epochs and a tail of one on 25,000
# images instead of 200 on 50,000, and 15 for their shared baseline. There is no validation; the last epoch counts.
# That makes 47 epochs of 25,000 images: about 35 minutes on one core per seed.
# Arguments: seeds, and settings for every run.
#   sh scripts/reproduce/soft_resnet20.sh 0,1,2
set -eu
seeds=$1
shift
prunebench -m model=resnet20 method=sfp,fpgm recipe=short name=soft_resnet20 run.threads=1 run.seed="$seeds" \
  dataset.train_size=25000 \
  recipe.pruning.epochs=15 recipe.pruning.lr=0.2 recipe.pruning.schedule=cosine \
  recipe.pruning.warmup_epochs=1.0 recipe.finetune.epochs=1 recipe.finetune.lr=0.001 "$@"
