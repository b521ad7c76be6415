#!/bin/sh
# Probability pruning of a trained MobileNetV1 without any fine-tuning, beside L1 and random cuts of the
# same MACs. Nothing is selected by images: all three criteria see weights alone. The stage "pruned" of
# probability is without shift fusion, "repaired" with it. About an hour of one CPU core for the
# 1,000 images and five ratios below.
#   export PYTHONPATH=FOLDER    # that holds mobilenet_v1_tf.py
#   sh scripts/reproduce/probability_imagenet.sh mobilenet_v1_tf.MobileNetV1 CHECKPOINT IMAGES 0.98,0.95,0.9,0.8,0.6
# IMAGES holds a folder with images for each class, all of which are tested, as they are (224 x 224).
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
