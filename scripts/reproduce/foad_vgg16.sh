#!/bin/sh
# Runs FOAD on VGG-16 and CIFAR-10 by the rule of the published code and by that of its headline figures, both with
# t=1 and shortened: 8 epochs of 10,000 images for the shared baseline and 4 after the cut, instead of 160 and 160
# of 50,000. There is no validation; the last epoch counts. About 25 minutes on one core per seed.
# Arguments: seeds, and settings for every run.
#   sh scripts/reproduce/foad_vgg16.sh 0,1,2
set -eu
seeds=$1
shift
prunebench -m model=vgg16 method=foad,foad_headline recipe=short name=foad_vgg16 run.threads=1 run.seed="$seeds" \
  criterion.t=1 dataset.train_size=10000 recipe.baseline.epochs=8 recipe.finetune.epochs=4 "$@"
