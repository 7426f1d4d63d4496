#!/usr/bin/env bash
# One call on a bare GPU machine, without a network: build, contract, sanitizer, benchmarks. What matters most comes
# first, and each step leaves its result in $OUT as soon as it has one, so that a run that is cut off is not lost.
#
#   OUT=results PYTHON=.venv/bin/python benchmarks/gpu.sh
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-benchmarks/results/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
export PYTHONPATH="$PWD"
failed=0

step() { # name, command...
  local name=$1
  shift
  echo "== $name"
  if "$@" >"$OUT/$name.txt" 2>&1; then echo "ok" >"$OUT/$name.status"; else
    echo "failed with $?" >"$OUT/$name.status"
    failed=1
  fi
  tail -n 3 "$OUT/$name.txt"
}

step machine sh -c 'nvidia-smi; nvcc --version; "$0" -c "import torch; print(torch.__version__, torch.version.cuda)"' "$PYTHON"
step build "$PYTHON" setup.py -q build_native --inplace
step backends "$PYTHON" -c 'from fastvoc.ops import backends; [print(*row, sep=": ") for row in backends().items()]'
step contract "$PYTHON" -m pytest tests/test_ops.py -q
step benchmarks "$PYTHON" -m pytest benchmarks/test_ops.py -q --device cuda --results "$OUT"
step training "$PYTHON" -m pytest benchmarks/test_training.py -q --device cuda --rounds 5 --results "$OUT"
if command -v compute-sanitizer >/dev/null; then
  step memcheck compute-sanitizer --tool memcheck --error-exitcode 1 \
    "$PYTHON" -m pytest tests/test_ops.py -q -k "cuda or triton"
  step racecheck compute-sanitizer --tool racecheck --error-exitcode 1 \
    "$PYTHON" -m pytest tests/test_ops.py -q -k "cuda or triton"
fi
exit $failed
