#!/bin/sh
# Prunes a trained MobileNetV1 by probability without fine-tuning, and by L1 and at random to the same MACs.
# No image influences the choice: all three criteria only use weights. The stage "pruned" of probability is
# without shift fusion, "repaired" with it. About an hour on one CPU core for the 1,000 images and five
# ratios below.
#   export PYTHONPATH=FOLDER    # the folder with mobilenet_v1_tf.py
#   sh scripts/reproduce/probability_imagenet.sh mobilenet_v1_tf.MobileNetV1 CHECKPOINT IMAGES 0.98,0.95,0.9,0.8,0.6
# IMAGES has a folder of images for each class; all are tested without scaling (224 x 224).
set -eu
target=$1 checkpoint=$2 images=$3 keep=$4
shift 4
each() {
  prunebench -m model=import model.target="$target" baseline.checkpoint="$checkpoint" \
    dataset=folder dataset.path="$images" dataset.train=. dataset.test=. dataset.val_size=0 \
    dataset.crop=1 'dataset.mean=[0.5,0.5,0.5]' 'dataset.std=[0.5,0.5,0.5]' \
    recipe=short recipe.finetune.epochs=0 run.threads=1 run.latency_batch=1 \
    budget=macs budget.allocation=global budget.keep="$keep" name=probability_imagenet "$@"
}
each criterion=bn_probability repair=shift_fusion "$@"
each criterion=l1 "$@"
each criterion=random run.seed=0,1,2 "$@"
