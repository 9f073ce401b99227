#!/bin/sh
# Builds a Rust program for the image and its tests once per machine, and prints its path. Progress goes to stderr.
#
#   dev/tools/cargo-tool.sh NAME VERSION DURATION
#
# The crate and the program have the same name. It is cached outside the checkout, by name and version.
set -eu
. "$(dirname "$0")/once.sh"

once "$1" "$1-$2" "bin/$1"
echo "  building $name: $3 on two cores, once per machine …" >&2
build() {
    # Not with the flags and the directory of the build that needs it.
    cd / && unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    CARGO_TARGET_DIR=$new/target cargo install --locked --quiet --root "$new/root" "$1"
}
logged build "$1@$2"
finish "$new/root/bin/$name"
