#!/bin/sh
# Prunes four sparsity-trained networks by probability on CIFAR-10 without fine-tuning: stage "pruned" is without
# shift fusion, "repaired" with it. Each trains six epochs of 15,000 images, with a reduced width if it has one.
# About 6, 20, 5 and 5 minutes on one core per seed.
# Arguments: seeds, and settings for every run.
#   sh scripts/reproduce/probability_nets.sh 0,1,2
set -eu
seeds=$1
shift
sweep() {
  prunebench experiment=probability_cifar10 recipe=sparse_short name=probability_nets run.threads=1 \
    run.seed="$seeds" dataset.train_size=15000 dataset.val_size=500 recipe.baseline.precision=float32 \
    recipe.finetune.epochs=0 "$@"
}
sweep model=mobilenet_v2 model.width=0.25 "$@"
sweep model=shufflenet_v1 "$@"
sweep model=shufflenet_v2 model.width=0.5 "$@"
sweep model=ghostnet model.width=0.25 "$@"
