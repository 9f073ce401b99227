#!/usr/bin/env bash
# Builds the programs of a checkout and the control plane side by side:
#
#   dev/build.sh ARGUMENTS…    the arguments of `cargo build`
#
# CONTROL_PLANE=0 leaves the control plane out. When one build fails, the other is stopped.
set -uo pipefail

# Each build in a process group of its own, so that all its processes can be stopped.
set -m
running=()
stop() { for group in "${running[@]}"; do kill -- "-$group" 2>/dev/null; done; }
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

cargo build "$@" </dev/null &
running+=("$!")
cargo=$!
if [[ ${CONTROL_PLANE:-1} != 0 ]]; then
    # The compiler's processes are short: collecting their garbage costs a fifth of their time and frees little.
    GOGC=off GOMEMLIMIT=1GiB "$(dirname "$0")/controlplane/build.sh" </dev/null >/dev/null &
    running+=("$!")
fi
for _ in "${running[@]}"; do
    if ! wait -n -p ended; then
        [[ $ended == "$cargo" ]] && what="the operator" || what="the control plane"
        echo "error: building $what failed, see above" >&2
        exit 1
    fi
done
running=()
