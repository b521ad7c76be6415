#!/bin/sh
# Runs two criteria and all controls at a MACs target on a public checkpoint (akamaster/pytorch_resnet_cifar10)
# and 10,000 images: one epoch of fine-tuning, and where weights are discarded the recipe's 15 epochs from
# scratch before it (recipe.baseline.epochs). About 20 minutes on one core per seed of resnet20.
# Arguments: model, checkpoint, share of the MACs, seeds, and settings for every run.
#   sh scripts/reproduce/controls_checkpoint.sh resnet20 resnet20-12fca82f.th 0.5 0,1,2
set -eu
model=$1 checkpoint=$2 keep=$3 seeds=$4
shift 4
sweep() {
  prunebench -m "$@" baseline.checkpoint="$checkpoint" name="controls_$model" run.threads=1 \
    'dataset.mean=[0.485,0.456,0.406]' 'dataset.std=[0.229,0.224,0.225]' \
    dataset.train_size=10000 dataset.val_size=500 budget.keep="$keep" run.seed="$seeds" \
    recipe=short recipe.finetune.epochs=1 recipe.finetune.lr=0.01
}
sweep model="$model" criterion=l1,thinet budget=macs "$@"
sweep experiment=controls model="$model" "$@"
