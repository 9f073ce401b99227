#!/bin/sh
# Builds a Rust program for the image and its tests once per machine, and prints its path. Progress goes to stderr.
#
#   dev/tools/cargo-tool.sh NAME VERSION DURATION
#
# The crate and the program have the same name. It is cached outside the checkout, by name and version.
set -eu

name=$1 version=$2 duration=$3

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: $name is cached there}/.cache}
cache=$cache/tenantry/tools/$name-$version
binary=$cache/bin/$name
if [ -x "$binary" ]; then
    echo "$binary"
    exit
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
# Not with the flags and the directory of the build that needs it.
if ! (cd / && unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS && CARGO_TARGET_DIR=$new/target cargo install --locked --quiet \
    --root "$new/root" "$name@$version") >"$cache/log" 2>&1 </dev/null 9>&-; then
    tail -n 15 "$cache/log" >&2
    echo "building $name failed; the whole log: $cache/log" >&2
    exit 1
fi
mkdir -p "$cache/bin"
mv "$new/root/bin/$name" "$binary"
echo "$binary"
