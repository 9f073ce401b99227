#!/bin/sh
# Prints the path of promtool. Builds it first if this machine has not built this release before: it is cached by a digest
# of this file, outside the checkout. Progress goes to stderr.
set -eu

promtool=github.com/prometheus/prometheus/cmd/promtool@v0.316.0

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: promtool is cached there}/.cache}
cache=$cache/tenantry/tools/$(sha256sum <"$0" | cut -c 1-24)
binary=$cache/promtool
if [ -x "$binary" ]; then
    echo "$binary"
    exit
fi
if ! command -v go >/dev/null; then
    echo "Go is missing: install Go 1.26 or newer to build promtool for the tests of the alerts" >&2
    exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    echo "  waiting: another process builds promtool" >&2
    flock 9
    if [ -x "$binary" ]; then
        echo "$binary"
        exit
    fi
fi

echo "  building promtool for the tests of the alerts: about three minutes on two cores, once per machine …" >&2
# Without the clients of every cloud whose machines Prometheus can discover: rules need none. As for the control plane, no
# cgo and no debug information.
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
if ! (cd / && CGO_ENABLED=0 GOBIN=$new go install -trimpath -tags=remove_all_sd,netgo -gcflags=all=-dwarf=false \
    -ldflags="-s -w" "$promtool") >"$cache/log" 2>&1 </dev/null 9>&-; then
    tail -n 15 "$cache/log" >&2
    echo "building promtool failed; the whole log: $cache/log" >&2
    exit 1
fi
mv "$new/promtool" "$binary"
echo "$binary"
