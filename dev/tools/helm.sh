#!/bin/sh
# Prints the path of Helm's binary. Builds it first if this machine has not built this release before: it is cached by a
# digest of this file, outside the checkout. Progress goes to stderr.
set -eu

helm=helm.sh/helm/v4/cmd/helm@v4.3.2

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: Helm is cached there}/.cache}
cache=$cache/tenantry/tools/$(sha256sum <"$0" | cut -c 1-24)
binary=$cache/helm
if [ -x "$binary" ]; then
    echo "$binary"
    exit
fi
if ! command -v go >/dev/null; then
    echo "Go is missing: install Go 1.26 or newer to build Helm for the tests of the chart" >&2
    exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    echo "  waiting: another process builds Helm" >&2
    flock 9
    if [ -x "$binary" ]; then
        echo "$binary"
        exit
    fi
fi

echo "  building Helm for the tests of the chart: about two minutes on two cores, once per machine …" >&2
# As for the control plane, whose packages are not compiled twice where the versions agree: no cgo, no debug information.
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
if ! (cd / && CGO_ENABLED=0 GOBIN=$new go install -trimpath -gcflags=all=-dwarf=false -ldflags="-s -w" "$helm") \
    >"$cache/log" 2>&1 </dev/null 9>&-; then
    tail -n 15 "$cache/log" >&2
    echo "building Helm failed; the whole log: $cache/log" >&2
    exit 1
fi
mv "$new/helm" "$binary"
echo "$binary"
