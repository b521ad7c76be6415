#!/bin/sh
# Probability pruning of four sparsity-trained networks on CIFAR-10 without fine-tuning: stage "pruned" is without
# fusion, "repaired" with it. Six epochs of 15,000 images each, narrow where the definition has a width.
# On one core and for each seed about 6, 20, 5 and 5 minutes. What follows the seeds is passed on to every run.
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
