#!/usr/bin/env bash
# What only a machine with a CUDA GPU can show; needs no network.
#   bench/gpu.sh all FOLDER     the tests marked gpu, then the benches (about 6 minutes on an H100)
#   bench/gpu.sh gpu FOLDER     the tests marked gpu alone
#   bench/gpu.sh bench FOLDER   the benches alone; with CONVSCOPE_DATA also the study cifar10
#   bench/gpu.sh reproduce FOLDER  report B as reported: its 44 runs, 13 at once on one GPU (never run; written for 12 minutes on
#                               an H100); give it again to go on
#   bench/gpu.sh tests FOLDER   on the CPU all tests that need no browser, no database and no data: is the suite green here?
# FOLDER takes small text files. Every part runs, also after one that failed; the exit status is 1 if any did.
set -uo pipefail
mode=${1:?bench/gpu.sh all|gpu|bench|reproduce|tests FOLDER}
out=$(mkdir -p "${2:?bench/gpu.sh $mode FOLDER}" && cd "$2" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
workers=${WORKERS:-12}
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
failed=0

run() {  # run FILE COMMAND…: to the screen and to the end of a file, with its seconds and exit status
  local file=$out/$1 began=$SECONDS status=0
  shift
  echo "\$ $*" | tee -a "$file"
  timeout "${LIMIT:-280}" "$@" 2>&1 | tee -a "$file" || status=$?
  echo "[$((SECONDS - began)) s, exit $status]" | tee -a "$file"
  [ "$status" = 0 ] || failed=1
  return $status
}

machine() {
  run machine.txt nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  run machine.txt "$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda, "GPU:", torch.cuda.is_available())'
  run machine.txt sh -c 'lscpu | grep -E "^(Model name|CPU\(s\)|L[123])"; grep -m1 ^flags /proc/cpuinfo | tr " " "\n" | grep -E "avx|amx|fma" | tr "\n" " "; echo'
}

gpu_tests() {  # one process for each few files: one would leave most of the time to the CPU
  OMP_NUM_THREADS=1 run gpu-tests.txt "$python" -m pytest -p no:benchmark -m gpu -n "${GPU_WORKERS:-6}" -q -p no:cacheprovider --durations=8 tests/data tests/graph tests/lenses tests/scans tests/training
}

benches() {
  for net in net4 vgg-cifar lean-cifar; do
    for precision in fp32 bf16; do
      run step.txt "$python" bench/step.py --device cuda --net $net --precision $precision --rounds 5
    done
    run step.txt "$python" bench/step.py --device cuda --net $net --precision bf16 --batch 1024 --rounds 3
  done
  run occlusion.txt "$python" bench/occlusion.py --only net4 --device cuda --at-once 1 16 64 256 1024
  run at-once.txt "$python" bench/at_once.py --device cuda
  run at-once.txt "$python" bench/at_once.py --device cuda --net lean-cifar
  if [ -n "${CONVSCOPE_DATA:-}" ]; then
    run cifar10.txt "$python" -m convscope study cifar10 --device cuda --out "$out/cifar10"
  fi
}

cpu_tests() {
  OMP_NUM_THREADS=1 LIMIT=${LIMIT:-420} run cpu-tests.txt "$python" -m pytest -p no:benchmark -m 'not slow and not smoke and not gpu and not browser' -n "$workers" -q -p no:cacheprovider --durations=8 tests/graph tests/lenses tests/scans tests/training tests/nets tests/runs
}

reproduce() {  # the studies side by side, the longest with the fewest runs; then their page
  local waiting=()
  for study in "net4-depth 2" "net3-grid 4" "net2-grid 3" "net1-grid 4"; do
    set -- $study
    LIMIT=${LIMIT:-720} run "reproduce-$1.txt" "$python" -m convscope reproduce "$1" --budget "${BUDGET:-full}" --workers "$2" --device "${DEVICE:-cuda}" --out "$out/reproduce" &
    waiting+=($!)
  done
  for each in "${waiting[@]}"; do
    wait "$each" || failed=1
  done
  run reproduction.txt "$python" -m convscope reproduce --out "$out/reproduce" --markdown "$out/reproduction.md"
}

machine
case $mode in
  all) gpu_tests; benches ;;
  gpu) gpu_tests ;;
  bench) benches ;;
  reproduce) reproduce ;;
  tests) cpu_tests ;;
  *) echo "mode $mode: expected all, gpu, bench, reproduce or tests" >&2; exit 2 ;;
esac
exit $failed
