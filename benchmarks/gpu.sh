#!/usr/bin/env bash
# All that is measured on a GPU, most wanted first; what is there is not measured again. What the
# steps say is in OUT/log.txt. No step takes the time of all that follow.
#   bash benchmarks/gpu.sh OUT MINUTES ["COMMAND of the other implementation"]
# Runs from the repository's root with the Python that has PyTorch for the GPU (PYTHON=...).
set -uo pipefail
out=$1 minutes=$2 beside=${3:-}
python=${PYTHON:-python3}
"$python" -c 'import torch; assert torch.cuda.is_available(), "PyTorch sees no GPU"' || exit 1
mkdir -p "$out"
step() { # NAME, seconds at most, command
  local name=$1 most=$2 left=$((60 * minutes - SECONDS))
  shift 2
  [ "$left" -gt 10 ] || { echo "$name: no time left"; return; }
  local began=$SECONDS
  # As by Ctrl-C: tests then still say what has failed.
  timeout -s INT -k 10 "$((left < most ? left : most))" "$@" > "$out/.step" 2>&1
  echo "$name: exit code $?, $((SECONDS - began)) s" | tee -a "$out/log.txt"
  cat "$out/.step" >> "$out/log.txt"
  tail -n 4 "$out/.step"
  rm "$out/.step"
}
test=("$python" -m pytest -p no:cacheprovider -W default -vv -rs)

step warm 150 "$python" benchmarks/warm_kernels.py
step kernels 150 "${test[@]}" tests/models/test_kernels_on_gpu.py
if [ -n "$beside" ]; then
  for model in mdeq-large:random mdeq-small-s050; do
    step "same_work $model" 150 "$python" benchmarks/same_work.py --beside "$beside" --device cuda \
      --threads 8 --n 4000 --rounds 3 --models "$model" --out "$out/same_work_gpu.json"
  done
fi
step fast_labels 60 "$python" benchmarks/fast_labels.py --device cuda \
  --models mdeq-small-s050 mdeq-digits-s050 --out "$out/fast_labels_gpu"
step tests 150 "${test[@]}" tests/smoothing/test_on_gpu.py tests/solvers/test_on_gpu.py
step on_gpu 600 "$python" benchmarks/on_gpu.py --n 2000 --streams device \
  --models mdeq-large:random mdeq-small-s050 --precisions bfloat16 float32 --out "$out/on_gpu"
