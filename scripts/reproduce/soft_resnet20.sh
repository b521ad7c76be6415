#!/bin/sh
# SFP and FPGM as published, of ResNet-20 from scratch, shortened: 15 epochs and a tail of one on 25,000 images in
# the place of 200 on 50,000, beside their shared baseline of 15. All images of the part train, the last epoch
# counts. 47 epochs of 25,000 images: about 35 minutes of one core for each seed. What follows is passed on.
#   sh scripts/reproduce/soft_resnet20.sh 0,1,2
set -eu
seeds=$1
shift
prunebench -m model=resnet20 method=sfp,fpgm recipe=short name=soft_resnet20 run.threads=1 run.seed="$seeds" \
  dataset.train_size=25000 \
  recipe.pruning.epochs=15 recipe.pruning.lr=0.2 recipe.pruning.schedule=cosine \
  recipe.pruning.warmup_epochs=1.0 recipe.finetune.epochs=1 recipe.finetune.lr=0.001 "$@"
