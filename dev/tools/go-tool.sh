#!/bin/sh
# Builds a Go program for the tests once per machine, and prints its path. Progress goes to stderr.
#
#   dev/tools/go-tool.sh NAME PACKAGE@VERSION DURATION [TAGS]   a package that can be installed as it is
#   dev/tools/go-tool.sh NAME DIRECTORY PACKAGE DURATION        one that needs the go.mod of a directory beside this file
#
# It is cached outside the checkout, by a digest of the arguments and of the directory.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/once.sh"

case $2 in
*@*) module= package=$2 duration=$3 tags=${4:-} ;;
*) module=$here/$2 package=$3 duration=$4 tags= ;;
esac

content() {
    echo "$1 $package${tags:+ $tags}"
    [ -z "$module" ] || (cd "$module" && find . -type f | sort | xargs sha256sum)
}
once "$1" "$1-$(content "$1" | sha256sum | cut -c 1-24)" "$1"
needs_go
echo "  building $name: $duration on two cores, once per machine …" >&2
build() {
    export CGO_ENABLED=0
    # As for the control plane, whose packages are not compiled twice where the versions agree: no cgo, no debug information.
    set -- -trimpath "-tags=$tags" -gcflags=all=-dwarf=false "-ldflags=-s -w"
    if [ -n "$module" ]; then
        cd "$module" && go build "$@" -o "$new/$name" "$package"
    else
        cd / && GOBIN=$new go install "$@" "$package"
    fi
}
logged build
# What a controller brings beside its program: its CRDs.
if [ -n "$module" ]; then
    source=$(cd "$module" && go list -f '{{with .Module}}{{.Dir}}{{end}}' "$package")
    if [ -d "$source/config/crd/bases" ]; then
        rm -rf "$cache/crds"
        cp -r "$source/config/crd/bases" "$cache/crds"
        chmod -R u+w "$cache/crds"
    fi
fi
finish "$new"/*
