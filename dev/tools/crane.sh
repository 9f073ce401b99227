#!/bin/sh
# Prints the path of crane's binary: a client and a server of container registries. Builds it first if this machine has
# not built this release before: it is cached by a digest of this file, outside the checkout. Progress goes to stderr.
set -eu

crane=github.com/google/go-containerregistry/cmd/crane@v0.22.1

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: crane is cached there}/.cache}
cache=$cache/tenantry/tools/$(sha256sum <"$0" | cut -c 1-24)
binary=$cache/crane
if [ -x "$binary" ]; then
    echo "$binary"
    exit
fi
if ! command -v go >/dev/null; then
    echo "Go is missing: install Go 1.26 or newer to build crane for the tests of images" >&2
    exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    echo "  waiting: another process builds crane" >&2
    flock 9
    if [ -x "$binary" ]; then
        echo "$binary"
        exit
    fi
fi

echo "  building crane for the tests of images: a minute at most, once per machine …" >&2
# No cgo, no debug information.
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
if ! (cd / && CGO_ENABLED=0 GOBIN=$new go install -trimpath -gcflags=all=-dwarf=false -ldflags="-s -w" "$crane") \
    >"$cache/log" 2>&1 </dev/null 9>&-; then
    tail -n 15 "$cache/log" >&2
    echo "building crane failed; the whole log: $cache/log" >&2
    exit 1
fi
mv "$new/crane" "$binary"
echo "$binary"
