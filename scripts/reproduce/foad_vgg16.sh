#!/bin/sh
# FOAD of VGG-16 on CIFAR-10 by the published code's rule and by the one of its headline figures, both with t=1 and
# shortened: 8 epochs of 10,000 images for the baseline that both share and 4 behind the cut, in the place of 160 and
# 160 of 50,000. All images of the part train, the last epoch counts. About 25 minutes of one core a seed. What follows
# is passed on.
#   sh scripts/reproduce/foad_vgg16.sh 0,1,2
set -eu
seeds=$1
shift
prunebench -m model=vgg16 method=foad,foad_headline recipe=short name=foad_vgg16 run.threads=1 run.seed="$seeds" \
  criterion.t=1 dataset.train_size=10000 recipe.baseline.epochs=8 recipe.finetune.epochs=4 "$@"
