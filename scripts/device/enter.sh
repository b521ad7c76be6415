# Sourced by smoke.sh and results.sh: prepares the machine once, and prints what it is.
# WORK is outside the tree and is kept between calls. What is in OUT is brought back from the machine:
# that allows few files, so they are packed.
WORK=${WORK:-/tmp/prunebench}
OUT=${OUT:-build/device/out}
REHEARSAL=${REHEARSAL:-}
PYTHON=${PYTHON:-python3}
mkdir -p "$WORK/parts" "$WORK/data" "$WORK/done" "$WORK/logs" "$OUT"
started=$(date +%s)

say() {
  echo "$(($(date +%s) - started)) s: $*" | tee -a "$OUT/log.txt"
}

mps() { # starts MPS, with which kernels of several processes run at the same time instead of in turns
  PATH="$PATH:/usr/local/nvidia/bin"
  export CUDA_MPS_PIPE_DIRECTORY="$WORK/mps" CUDA_MPS_LOG_DIRECTORY="$WORK/mps"
  mkdir -p "$WORK/mps"
  command -v nvidia-cuda-mps-control >/dev/null || { say "no MPS here"; no_mps; return; }
  echo get_server_list | nvidia-cuda-mps-control >/dev/null 2>&1 || nvidia-cuda-mps-control -d
  if timeout 60 "$PYTHON" -c 'import torch; print(torch.zeros(1).cuda() + 1)'; then
    say "MPS is at work"
  else
    say "without MPS"
    no_mps
  fi
}

no_mps() {
  echo quit | timeout 10 nvidia-cuda-mps-control >/dev/null 2>&1
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

if [ ! -e "$WORK/site" ] && ls build/device/wheels/*.whl >/dev/null 2>&1; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
    --target "$WORK/site" build/device/wheels/*.whl
fi
cp -n build/device/[12]/* "$WORK/parts/" 2>/dev/null || true
export PYTHONPATH="$PWD:$WORK/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
if [ ! -e "$WORK/data/cifar10.npz" ]; then
  "$PYTHON" scripts/device/parts.py join "$WORK/parts" "$WORK/data/cifar10.npz" || true
fi
nvidia-smi -L 2>/dev/null | tee -a "$OUT/log.txt" || say "no nvidia-smi"
"$PYTHON" -c 'import torch; print("torch", torch.__version__, torch.version.cuda, torch.cuda.is_available())' |
  tee -a "$OUT/log.txt"
