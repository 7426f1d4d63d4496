#!/usr/bin/env bash
# One call on a bare GPU machine, without a network: build, contract, sanitizers, benchmarks, within ten minutes. What
# matters most comes first, and each step leaves its result in $OUT as soon as it has one, so that a run that is cut off
# is not lost.
#
#   OUT=results PYTHON=.venv/bin/python benchmarks/gpu.sh [--seconds 570] [--dry-run]
#
# --seconds is what all steps may take together; --dry-run lists them, on any machine.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-benchmarks/results/gpu}
PYTHON=${PYTHON:-python3}
total=570 dry=no failed=0

while [ $# -gt 0 ]; do
  case $1 in
    --seconds) total=${2:?--seconds: needs a number} && shift 2 ;;
    --dry-run) dry=yes && shift ;;
    *) echo "gpu.sh: unknown option $1; known: --seconds N, --dry-run" >&2 && exit 2 ;;
  esac
done

step() { # most seconds, name, command...
  local limit=$1 name=$2 left=$((total - SECONDS)) code=0
  shift 2
  if [ $dry = yes ]; then
    echo "$name ($limit s): $*"
    return
  fi
  if [ "$left" -lt 5 ]; then
    echo "not reached" >"$OUT/$name.status"
    return
  fi
  echo "== $name"
  timeout --kill-after 10 $((left < limit ? left : limit)) "$@" >"$OUT/$name.txt" 2>&1 || code=$?
  case $code in
    0) echo "ok" ;;
    124) echo "cut off; rows that were complete are kept" ;;
    *) echo "failed with $code" ;;
  esac >"$OUT/$name.status"
  case $code in 0 | 124) ;; *) failed=1 ;; esac
  tail -n 3 "$OUT/$name.txt"
}

measure() { # most seconds, name, arguments of pytest...
  step "$1" "$2" "$PYTHON" -m pytest -q -p no:cacheprovider --device cuda --results "$OUT" "${@:3}"
}

if [ $dry = no ]; then
  if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch sees no CUDA device here; --dry-run lists the steps" >&2
    exit 2
  fi
  mkdir -p "$OUT"
  export PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 PIP_NO_INDEX=1
  architecture=$("$PYTHON" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
  export FASTVOC_CUDA_ARCHITECTURES=${FASTVOC_CUDA_ARCHITECTURES:-$architecture} # and not those of all other GPUs
fi

step 20 machine sh -c 'nvidia-smi; nvcc --version; "$0" -c "import torch; print(torch.__version__, torch.version.cuda)"' \
  "$PYTHON"
if [ $dry = yes ] || { [ "$architecture" = 90 ] && command -v nvcc >/dev/null; }; then
  step 60 hopper_probe sh -c \
    'nvcc -std=c++17 -gencode arch=compute_90a,code=sm_90a -o "$0" csrc/check/hopper_probe.cu && "$0"' "$OUT/hopper_probe"
fi
step 180 build "$PYTHON" setup.py -q build_native --inplace
step 90 doctor "$PYTHON" -m fastvoc doctor
step 180 contract "$PYTHON" -m pytest tests/test_ops.py -q
step 90 determinism "$PYTHON" -m pytest tests/test_cuda_gpu.py tests/test_triton_gpu.py tests/test_captured.py -q
measure 90 training benchmarks/test_training.py -k v1 --rounds 5
measure 150 vocoders benchmarks/test_vocoders.py --seconds 1,10 --budget 2
step 60 triton env FASTVOC_BACKEND=triton "$PYTHON" -m fastvoc bench hifigan-v1 hifigan-v2 --device cuda --dtype float16
measure 90 operators benchmarks/test_ops.py
measure 240 training_compiled benchmarks/test_training.py -k v1 --rounds 5 --thorough
if [ $dry = yes ] || command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    step 90 $tool compute-sanitizer --tool $tool --error-exitcode 1 \
      "$PYTHON" -m pytest tests/test_ops.py tests/test_cuda_gpu.py tests/test_triton_gpu.py -q -k "cuda or triton"
  done
fi
if [ $dry = yes ] || command -v ncu >/dev/null; then
  step 40 hottest "$PYTHON" -m benchmarks.hottest hifigan-v1 --count 3
  names=$(cut -f 1 "$OUT/hottest.txt" 2>/dev/null | paste -s -d '|')
  step 60 counters ncu --clock-control none --kernel-name "regex:^(${names:-a|b|c})\$" --launch-count 9 \
    --section SpeedOfLight --section Occupancy --section WarpStateStats \
    "$PYTHON" -m benchmarks.hottest hifigan-v1 --runs 1
fi
measure 60 streaming benchmarks/test_streaming.py --budget 1 --rounds 5
measure 60 batches benchmarks/test_vocoders.py --networks hifigan-v1,hifigan-v2 --batches 8,32 --budget 1
measure 60 quality benchmarks/test_quality.py
measure 60 processes benchmarks/test_processes.py
measure 120 compiled benchmarks/test_vocoders.py --networks hifigan-v1 --precisions bfloat16 --thorough --budget 2

if [ $dry = no ]; then
  for section in cuda-chart cuda left-out operators rooflines training streaming scaling processes precision; do
    printf '## %s\n\n<!-- benchmarks: %s -->\n<!-- /benchmarks -->\n\n' $section $section
  done >"$OUT/report.md"
  total=$((SECONDS + 30)) # the tables of what there is, in any case
fi
step 30 report "$PYTHON" -m benchmarks.report \
  --results "$OUT" --pages "$OUT/report.md" --pictures "$OUT/pictures" --speeds "$OUT/speeds.txt"
exit $failed
