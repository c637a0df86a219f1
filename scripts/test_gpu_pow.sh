#!/usr/bin/env bash
# The self-test of a GPU machine, in one line: finds the GPUs, tests the kernels on each, then has
# every GPU answer one whole challenge, and prints a table of what was proven and how long it took.
#
#   scripts/test_gpu_pow.sh [--mode quick|deep|hold] [--json]
#
# In a checkout with cargo it builds first; without cargo it takes the binaries `orchestrator` and
# `remote-runner` that lie beside this script. It needs no root, no SSH and no CUDA toolkit, changes
# nothing on the machine, and does not touch a GPU that computes for somebody.
#
# exit status: 0 every GPU passed, 1 a file is missing, 2 usage, 3 some GPUs could not be asked,
#              4 a GPU did not pass, 5 no NVIDIA driver, or it does not work
set -euo pipefail

usage() {
    sed -n '2,12s/^# \{0,1\}//p' "$0"
}

fail() {
    printf 'error: %s\n' "$2" >&2
    [ $# -lt 3 ] || printf 'hint: %s\n' "$3" >&2
    exit "$1"
}

mode=quick
json=()
while [ $# -gt 0 ]; do
    case $1 in
        --mode)
            [ $# -ge 2 ] || fail 2 "--mode needs quick, deep or hold"
            mode=$2
            shift
            ;;
        --mode=*) mode=${1#--mode=} ;;
        --json) json=(--json) ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail 2 "unknown argument (see --help)" ;;
    esac
    shift
done
case $mode in
    quick | deep | hold) ;;
    *) fail 2 "--mode is quick, deep or hold" ;;
esac

here=$(cd "$(dirname "$0")" && pwd)

# Everything but the result goes to standard error, so that --json is one document.
say() {
    printf '%s\n' "$*" >&2
}

# Where a loader finds the driver's library; WSL and NixOS have places of their own.
driver_library() {
    local folder
    local -a folders
    IFS=: read -r -a folders <<< "${LD_LIBRARY_PATH:-}"
    for folder in ${folders[@]+"${folders[@]}"} /usr/lib/wsl/lib /run/opengl-driver/lib \
        /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib /lib64 /usr/local/nvidia/lib64; do
        if [ -n "$folder" ] && [ -e "$folder/libcuda.so.1" ]; then
            printf '%s\n' "$folder/libcuda.so.1"
            return 0
        fi
    done
    # Captured before it is searched: a closed pipe would be a failure of ldconfig's.
    local cache
    cache=$({ ldconfig -p || /sbin/ldconfig -p; } 2> /dev/null) || return 1
    awk '$1 == "libcuda.so.1" { print $NF; found = 1; exit } END { exit !found }' <<< "$cache"
}

# 1. Detection, before anything is built.
library=$(driver_library) || fail 5 "No NVIDIA driver found: there is no libcuda.so.1 on this machine" \
    "install the NVIDIA driver (R525 or later), or run this on the GPU machine"
say "driver library  $library"
if [ -r /proc/driver/nvidia/version ]; then
    say "kernel module   $(sed -n '1s/^NVRM version: *//p' /proc/driver/nvidia/version)"
else
    say "kernel module   /proc/driver/nvidia/version is not there (WSL, a container, or not loaded)"
fi
if command -v nvidia-smi > /dev/null; then
    nvidia-smi -L >&2 || say "nvidia-smi does not work; the test below says why"
fi

# 2. The binaries.
root=$(dirname "$here")
if [ -f "$root/Cargo.toml" ] && command -v cargo > /dev/null; then
    say "building the orchestrator and the runner ..."
    (cd "$root" && cargo build --release --locked --package orchestrator --package remote-runner) >&2
    binaries=${CARGO_TARGET_DIR:-$root/target}/release
else
    binaries=$here
fi
for binary in orchestrator remote-runner; do
    [ -x "$binaries/$binary" ] || fail 1 "there is no executable $binaries/$binary" \
        "put the binaries beside this script, or install Rust and run it in a checkout"
done

# 3. The self-test of the kernels and one challenge for each GPU; the orchestrator prints the table
#    and gives the exit status.
say "challenging every GPU, mode $mode ..."
exec "$binaries/orchestrator" verify --local --mode "$mode" ${json[@]+"${json[@]}"}
