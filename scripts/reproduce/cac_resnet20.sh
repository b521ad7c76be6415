#!/bin/sh
# Runs CAC on ResNet-20 at half of the MACs, and random channels and L1 at the same cost. Each trains 16 epochs
# of 20,000 images: CAC from scratch (15, and a tail of one), the others 8 before the cut and 8 after it.
# With CAC's own baseline that makes 47 epochs: about 35 minutes on one core per seed.
# Arguments: seeds, and settings for every run.
#   sh scripts/reproduce/cac_resnet20.sh 0,1,2
set -eu
seeds=$1
shift
sweep() {
  prunebench -m model=resnet20 recipe=short budget.keep=0.5 name=cac_resnet20 run.threads=1 run.seed="$seeds" \
    dataset.train_size=20000 "$@"
}
sweep method=cac criterion.prune_every=5 criterion.ema_epochs=1.0 recipe.pruning.epochs=15 recipe.pruning.lr=0.2 recipe.pruning.schedule=cosine \
  recipe.pruning.warmup_epochs=1.0 recipe.finetune.epochs=1 recipe.finetune.lr=0.001 "$@"
sweep criterion=random,l1 budget=macs repair=bn_recalibration recipe.baseline.epochs=8 recipe.finetune.epochs=8 "$@"
