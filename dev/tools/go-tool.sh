#!/bin/sh
# Builds a Go program for the tests once per machine, and prints its path. Progress goes to stderr.
#
#   dev/tools/go-tool.sh NAME PACKAGE@VERSION DURATION    a package that can be installed as it is
#   dev/tools/go-tool.sh NAME DIRECTORY PACKAGE DURATION  one that needs the go.mod of a directory beside this file
#
# It is cached outside the checkout, by a digest of the arguments and of the directory.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=$1
if [ $# = 4 ]; then module=$here/$2 package=$3 duration=$4; else module= package=$2 duration=$3; fi

content() {
    echo "$name $package"
    [ -z "$module" ] || (cd "$module" && find . -type f | sort | xargs sha256sum)
}
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: $name is cached there}/.cache}
cache=$cache/tenantry/tools/$name-$(content | sha256sum | cut -c 1-24)
binary=$cache/$name
if [ -x "$binary" ]; then
    echo "$binary"
    exit
fi
if ! command -v go >/dev/null; then
    echo "Go is missing: install Go 1.26 or newer to build $name" >&2
    exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    echo "  waiting: another process builds $name" >&2
    flock 9
    if [ -x "$binary" ]; then
        echo "$binary"
        exit
    fi
fi

echo "  building $name: $duration on two cores, once per machine …" >&2
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
build() {
    if [ -n "$module" ]; then
        cd "$module" && go build "$@" -o "$new/$name" "$package"
    else
        cd / && GOBIN=$new go install "$@" "$package"
    fi
}
# As for the control plane, whose packages are not compiled twice where the versions agree: no cgo, no debug information.
if ! (CGO_ENABLED=0 && export CGO_ENABLED && build -trimpath -gcflags=all=-dwarf=false "-ldflags=-s -w") \
    >"$cache/log" 2>&1 </dev/null 9>&-; then
    tail -n 15 "$cache/log" >&2
    echo "building $name failed; the whole log: $cache/log" >&2
    exit 1
fi
# What a controller brings beside its program: its CRDs.
if [ -n "$module" ]; then
    source=$(cd "$module" && go list -f '{{with .Module}}{{.Dir}}{{end}}' "$package")
    if [ -d "$source/config/crd/bases" ]; then
        rm -rf "$cache/crds"
        cp -r "$source/config/crd/bases" "$cache/crds"
        chmod -R u+w "$cache/crds"
    fi
fi
mv "$new"/* "$binary"
echo "$binary"
