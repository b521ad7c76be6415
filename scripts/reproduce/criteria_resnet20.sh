#!/bin/sh
# One-shot criteria at a MACs target on the public ResNet-20 (akamaster/pytorch_resnet_cifar10),
# with one short epoch of fine-tuning. About 40 minutes per target and three seeds on one core.
#   sh scripts/reproduce/criteria_resnet20.sh resnet20-12fca82f.th 0.5 0,1,2
set -eu
prunebench -m model=resnet20 baseline.checkpoint="$1" name=criteria_resnet20 run.threads=1 \
  'dataset.mean=[0.485,0.456,0.406]' 'dataset.std=[0.229,0.224,0.225]' \
  dataset.train_size=10000 dataset.val_size=500 \
  recipe=short recipe.finetune.epochs=1 recipe.finetune.lr=0.01 budget=macs budget.keep="$2" \
  criterion=random,l1,l2,fpgm,foad,thinet,apoz,hrank,taylor,slimming,bn_probability run.seed="$3"
