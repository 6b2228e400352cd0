#!/usr/bin/env bash
# All that is measured on a GPU, most wanted first; what is there is not measured again. What the
# steps say is in OUT/log.txt.
#   bash benchmarks/gpu.sh OUT MINUTES ["COMMAND of the other implementation"]
# Runs from the repository's root with the Python that has PyTorch for the GPU (PYTHON=...).
set -uo pipefail
out=$1 minutes=$2 beside=${3:-}
python=${PYTHON:-python3}
mkdir -p "$out"
left() { echo $((60 * minutes - SECONDS)); }
step() {
  local name=$1
  shift
  [ "$(left)" -gt 10 ] || { echo "$name: no time left"; return; }
  local began=$SECONDS
  timeout "$(left)" "$@" > "$out/.step" 2>&1
  echo "$name: exit code $?, $((SECONDS - began)) s" | tee -a "$out/log.txt"
  cat "$out/.step" >> "$out/log.txt"
  tail -n 4 "$out/.step"
  rm "$out/.step"
}
test=("$python" -m pytest -p no:cacheprovider -W default -vv)

step warm "$python" benchmarks/warm_kernels.py
step kernels "${test[@]}" tests/models/test_kernels_on_gpu.py
if [ -n "$beside" ]; then
  step same_work "$python" benchmarks/same_work.py --beside "$beside" --device cuda --threads 8 --n 4000 \
    --rounds 3 --models mdeq-large:random mdeq-small-s050 --out "$out/same_work_gpu.json"
fi
step tests "${test[@]}" tests/smoothing/test_on_gpu.py tests/solvers/test_on_gpu.py
step on_gpu "$python" benchmarks/on_gpu.py --n 2000 --streams device --out "$out/on_gpu"
step fast_labels "$python" benchmarks/fast_labels.py --device cuda --models mdeq-small-s050 mdeq-digits-s050 \
  --out "$out/fast_labels_gpu"
