#!/bin/sh
# Measures a graphics card with Aerostat, in eight minutes at most, for docs/benchmarks.md.
#
# usage: bench/gpu/run.sh AEROSTAT [MODEL] [LLAMA_BENCH]
#
#   AEROSTAT     the command, from a release or `cargo build --release`
#   MODEL        a model to sweep over: a folder or a GGUF file. Best is one that is larger than half the card's memory and
#                fits it. Without it only kernels and uploads are measured.
#   LLAMA_BENCH  the llama-bench of a llama.cpp that was built with Vulkan; MODEL must be a GGUF file then
#
# Variables: DEVICE (gpu, the first adapter, or gpu:N), VRAM (1GiB), SECONDS_EACH (0.3).
# Nothing else should use the card or the disk meanwhile. What comes of it lies in ./aerostat-gpu, to be posted as it is: it says
# the card, its driver, the processor and the system, and nothing of what is on the disk but the name of MODEL.
set -eu

if [ $# -lt 1 ] || [ $# -gt 3 ]; then
    sed -n '2,/^set /p' "$0" | sed -n 's/^# \{0,1\}//p' >&2
    exit 2
fi
aerostat=$1
model=${2:-}
other=${3:-}
out=aerostat-gpu
mkdir -p "$out"

"$aerostat" --version >"$out/version.txt"
"$aerostat" devices --json >"$out/devices.json"
"$aerostat" devices

set -- bench gpu --device "${DEVICE:-gpu}" --vram "${VRAM:-1GiB}" --seconds "${SECONDS_EACH:-0.3}" --json
if [ -n "$model" ]; then
    set -- "$@" "$model"
fi
if [ -n "$other" ]; then
    set -- "$@" --llama-bench "$other"
fi
# What is not done in time is not measured: then there is no result, and fewer --rows or a smaller model will do.
limit=
if command -v timeout >/dev/null; then
    limit="timeout 480"
fi
if ! $limit "$aerostat" "$@" >"$out/gpu.json"; then
    echo "bench/gpu/run.sh: that failed, or took more than eight minutes: aerostat $*" >&2
    exit 1
fi
echo "$out/gpu.json has the results"
