#!/usr/bin/env bash
# One call on a bare GPU machine, without a network: build, contract, sanitizers, benchmarks, within ten minutes. What
# matters most comes first. After every step all results so far stand in one file, $OUT/gpu.tar.gz, so that a run that
# is cut off is not lost; the tables come last, and what they say is printed.
#
#   OUT=results PYTHON=python3 benchmarks/gpu.sh [--seconds 570] [--only headline,counters] [--dry-run | --rehearse]
#
# --seconds is what all steps may take together; --only names some of them. --dry-run lists them, on any machine. --rehearse runs them where there
# is no GPU: the CPU executes the kernels where it can stand in, and of every other step it is an error if it fails for
# any other reason than that there is no device.
#
# The machine needs the compilers, PyTorch, pytest and what the package needs at run time, all of which Python has to
# find; nothing is installed, and git is not needed: FASTVOC_COMMIT says what is measured. A library that was built
# beforehand is kept if it is of these sources and for this GPU.
set -u
cd "$(dirname "$0")/.." || exit
OUT=${OUT:-benchmarks/results/gpu}
PYTHON=${PYTHON:-python3}
total=570 mode=run only='' failed=0 last=

while [ $# -gt 0 ]; do
  case $1 in
    --seconds) total=${2:?--seconds: needs a number} && shift 2 ;;
    --only) only=${2:?--only: needs names of steps, with commas between them} && shift 2 ;;
    --dry-run) mode=list && shift ;;
    --rehearse) mode=rehearsal && shift ;;
    *) echo "gpu.sh: unknown option $1; known: --seconds N, --only STEPS, --dry-run, --rehearse" >&2 && exit 2 ;;
  esac
done

no_device='Found no NVIDIA driver|not compiled with CUDA enabled|sees (no|0) CUDA device|No CUDA GPUs are available'
no_device+='|no CUDA-capable device|driver version is insufficient'

# What became of a step, in a few words. A run of pytest in which nothing passed has shown nothing.
verdict() { # code, log, command...
  local code=$1 log=$2 pytest= passed=yes wrong other
  shift 2
  case " $* " in *" pytest "*) pytest=yes && { grep -qE '[0-9]+ passed' "$log" || passed=; } ;; esac
  wrong=$(grep -cE '^(FAILED|ERROR) ' "$log")
  if [ "$code" = 0 ] && [ $passed ]; then
    echo ok
    return
  fi
  if [ $mode = rehearsal ] && grep -qE "$no_device" "$log"; then
    # the reasons that the log gives, but for those that are that there is no device
    other=$(grep -E '^((FAILED|ERROR) .* - |E  +[A-Za-z.]*(Error|Exception)\b|[A-Za-z.]*(Error|Exception):|SKIPPED)' \
      "$log" | grep -vE "$no_device")
    [ "$other" ] || { echo "ok, but for a device" && return; }
  fi
  case $code in
    0) echo "FAILED: nothing passed" ;;
    124 | 137)
      if [ "$wrong" -gt 0 ]; then
        echo "FAILED: $wrong, then cut off"
      elif [ $pytest ] && [ $passed ]; then
        echo "cut off; what was complete is kept"
      else
        echo "FAILED: cut off before anything was complete"
      fi
      ;;
    *) echo "FAILED with $code" ;;
  esac
}

# All results so far in one file, which is whole or not there.
pack() {
  mkdir -p "$OUT"
  tar -czf "$OUT/gpu.tar.gz.partial" -C "$work" gpu && mv "$OUT/gpu.tar.gz.partial" "$OUT/gpu.tar.gz"
}

wanted() { # name of a step
  case ,$only,report, in ,,report, | *,$1,*) ;; *) return 1 ;; esac
}

step() { # most seconds, name, command...
  local limit=$1 name=$2 left=$((total - SECONDS)) code=0 begin=$SECONDS log
  shift 2
  last=
  wanted "$name" || return 0
  if [ $mode = list ]; then
    echo "$name ($limit s): $*"
    return
  fi
  log=$logs/$name.txt last="not reached"
  [ $mode = run ] || limit=$((4 * limit)) # of few cores, and without a hurry
  if [ "$left" -ge 5 ]; then
    echo "== $name"
    # an interrupted pytest still writes its summary; where this script runs in the background, it would not hear
    timeout --signal=INT --kill-after=10 $((left < limit ? left : limit)) \
      env --default-signal=INT "$@" >"$log" 2>&1 || code=$?
    last=$(verdict $code "$log" "$@")
    case $last in
      FAILED*) failed=1 && grep -E '^(FAILED|ERROR) ' "$log" | head -n 6 | cut -c 1-200 ;;
    esac
    tail -n 2 "$log" | cut -c 1-200
  fi
  printf '%s\t%s\t%s s\n' "$name" "$last" $((SECONDS - begin)) >>"$work/gpu/steps.tsv"
  pack
}

tests() { # most seconds, name, arguments of pytest...
  step "$1" "$2" "$PYTHON" -m pytest -q -p no:cacheprovider --tb=short -rfEs $one_is_enough "${@:3}"
}

measure() { # most seconds, name, arguments of pytest...
  tests "$1" "$2" --device cuda --results "$rows" "${@:3}"
}

left_out() { # name, why
  wanted "$1" || return 0
  printf '%s\t%s\t0 s\n' "$1" "$2" >>"$work/gpu/steps.tsv"
}

has() { # program, name of the step that needs it
  [ $mode = list ] || command -v "$1" >/dev/null || { left_out "$2" "there is no $1" && return 1; }
}

work= rows=ROWS logs=LOGS one_is_enough='' architecture=90
if [ $mode != list ]; then
  if [ $mode = run ] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch sees no CUDA device here; --dry-run lists the steps, --rehearse tries them" >&2
    exit 2
  fi
  mkdir -p "$OUT" || exit
  work=$(mktemp -d) || exit
  trap 'rm -rf "$work"' EXIT
  rows=$work/gpu/rows logs=$work/gpu/logs
  mkdir -p "$rows" "$logs"
  export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 PIP_NO_INDEX=1 COLUMNS=200
  FASTVOC_COMMIT=${FASTVOC_COMMIT:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
  export FASTVOC_COMMIT
  if [ $mode = run ]; then
    architecture=$("$PYTHON" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
  else
    one_is_enough=--maxfail=1
  fi
  export FASTVOC_CUDA_ARCHITECTURES=${FASTVOC_CUDA_ARCHITECTURES:-$architecture} # and not those of all other GPUs
fi

contract() { # most seconds, name, selection, command in front of Python...
  step "$1" "$2" "${@:4}" "$PYTHON" -m pytest -q -p no:cacheprovider --tb=short -rfE $one_is_enough \
    tests/ops/test_ops.py::test_every_backend_computes_the_definition -k "$3"
}
cuda=() triton=() uninterpretable=
if [ $mode = rehearsal ]; then
  if wanted contract || wanted contract_gradients || wanted contract_float32; then
    cuda=(env "FASTVOC_CUDA_ON_CPU=$(cd tests && "$PYTHON" -c 'import hosting; print(hosting.library())')")
  fi
  triton=(env TRITON_INTERPRET=1)
  uninterpretable=$(cd tests/gpu/triton && "$PYTHON" -c 'import test_triton; print(test_triton.uninterpretable() or "")')
fi

# 1. Is the machine what it seems, and does it multiply as the kernels take for granted?
step 45 machine sh -c 'nvidia-smi; nvcc --version; "$0" -c "import torch; print(torch.__version__, torch.version.cuda)"' \
  "$PYTHON"
if [ "$architecture" = 90 ] && has nvcc hopper_probe; then
  step 60 hopper_probe sh -c \
    'nvcc -std=c++17 -gencode arch=compute_90a,code=sm_90a -o "$0" csrc/tests/gpu/hopper_probe.cu && "$0"' \
    "${work:-WORK}/hopper_probe"
  case $last in
    ok | '') ;;
    *) export FASTVOC_HOPPER=off && echo "FASTVOC_HOPPER=off: the probe did not say that all is right" ;;
  esac
fi
step 180 build "$PYTHON" setup.py -q build_native --inplace --keep
# What is to be expected, if the model of the GPU that chooses the kernels is right.
step 30 predicted "$PYTHON" -m benchmarks.predicted --launches

# 2. Are the kernels right? Inference in 16 bits is what is measured next.
contract 90 contract "cuda and not float32 and not backward" ${cuda[@]+"${cuda[@]}"}
# 3. How fast are they?
measure 75 headline benchmarks/test_headline.py -k eager --budget 1
measure 75 training benchmarks/test_training.py -k v1 --rounds 5
# 4. The rest, as far as there is time.
contract 45 contract_gradients "cuda and not float32 and backward" ${cuda[@]+"${cuda[@]}"}
step 60 doctor "$PYTHON" -m fastvoc doctor
if [ "$architecture" = 90 ]; then # kernels that wait for a GPU to say whether they are faster
  for choice in chains in-turn; do
    step 60 "headline_${choice/-/_}" env FASTVOC_HOPPER=$choice "$PYTHON" -m pytest -q -p no:cacheprovider --tb=short \
      -rfEs $one_is_enough benchmarks/test_headline.py -k eager --budget 1 --device cuda --results "$rows-$choice"
  done
  step 60 autoregressive_clusters env FASTVOC_HOPPER=clusters "$PYTHON" -m pytest -q -p no:cacheprovider --tb=short \
    -rfEs $one_is_enough benchmarks/test_autoregressive.py -k one_launch --rounds 5 --device cuda \
    --results "$rows-clusters"
fi
measure 150 headline_compiled benchmarks/test_headline.py -k compiled --budget 1
contract 60 contract_float32 "cuda and float32" ${cuda[@]+"${cuda[@]}"}
tests 60 determinism tests/gpu/cuda/test_cuda_gpu.py tests/train/test_captured.py
measure 90 vocoders benchmarks/test_vocoders.py --seconds 1,10 --budget 1
if [ "$uninterpretable" ]; then
  left_out contract_triton_models "$uninterpretable"
  left_out contract_triton "$uninterpretable"
else
  # WaveGlow's operator has no other kernels
  contract 90 contract_triton_models "triton and not float32 and (gated: or convnext: or smooth_snake)" \
    ${triton[@]+"${triton[@]}"}
  contract 90 contract_triton "triton and not float32 and not (gated: or convnext: or smooth_snake)" \
    ${triton[@]+"${triton[@]}"}
fi
tests 60 determinism_triton tests/gpu/triton/test_triton_gpu.py
step 60 triton env FASTVOC_BACKEND=triton "$PYTHON" -m fastvoc bench hifigan-v1 hifigan-v2 --device cuda --dtype float16
measure 60 operators_triton benchmarks/test_ops.py -k "gated: or convnext: or smooth_snake" --rounds 5
measure 60 operators benchmarks/test_ops.py --rounds 5
measure 60 bigvgan benchmarks/test_vocoders.py --networks bigvgan-base --batches 1,32 --budget 1
if has compute-sanitizer memcheck; then
  # it sees nothing inside the blocks of memory that torch keeps, which graphs cannot do without
  sanitizer=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --error-exitcode 1 --tool)
  contract 90 memcheck "cuda and float16 and not bfloat16" "${sanitizer[@]}" memcheck
  contract 90 racecheck "cuda and float16 and not bfloat16 and (conv1d or residual) and not backward" \
    "${sanitizer[@]}" racecheck
fi
step 40 hottest "$PYTHON" -m benchmarks.hottest hifigan-v1 --count 3
if has ncu counters; then
  names=$(cut -f 1 "$logs/hottest.txt" 2>/dev/null | paste -s -d '|')
  step 60 counters ncu --clock-control none --kernel-name "regex:^(${names:-a|b|c})\$" --launch-count 9 \
    --section SpeedOfLight --section Occupancy --section WarpStateStats \
    "$PYTHON" -m benchmarks.hottest hifigan-v1 --runs 1
fi
measure 60 autoregressive benchmarks/test_autoregressive.py --rounds 5
measure 60 streaming benchmarks/test_streaming.py --budget 1 --rounds 5
measure 60 batches benchmarks/test_vocoders.py --networks hifigan-v1,hifigan-v2 --batches 8,32 --budget 1
measure 60 quality benchmarks/test_quality.py -k networks
measure 60 processes benchmarks/test_processes.py
measure 240 training_compiled benchmarks/test_training.py -k v1 --rounds 5 --thorough

# The tables of what there is, in any case.
if [ $mode != list ]; then
  for page in summary report; do
    sections="headline training"
    [ $page = summary ] || sections="$sections cuda-chart cuda left-out operators rooflines streaming scaling processes precision"
    for section in $sections; do
      printf '## %s\n\n<!-- benchmarks: %s -->\n<!-- /benchmarks -->\n\n' "$section" "$section"
    done >"$work/gpu/$page.md"
  done
  total=$((SECONDS + 30))
fi
step 30 report "$PYTHON" -m benchmarks.report --results "$rows" --pages "${work:-WORK}/gpu/summary.md" \
  "${work:-WORK}/gpu/report.md" --pictures "${work:-WORK}/gpu/pictures" --speeds "${work:-WORK}/gpu/speeds.json"
if [ $mode != list ]; then
  printf '\n'
  grep -v '<!--' "$work/gpu/summary.md"
  cat "$work/gpu/steps.tsv"
fi
exit $failed
