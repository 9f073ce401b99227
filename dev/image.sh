#!/usr/bin/env bash
# Builds the operator's image as an OCI layout, without a container engine:
#
#   dev/image.sh [DIRECTORY]    by default target/image
#
# DIRECTORY/layout is the image, DIRECTORY/sbom.cdx.json what it is made of, DIRECTORY/tenantry.debug the debug
# information that `gdb` finds by the name in the binary. The binary is linked statically, so the image has nothing else but the
# certificates of public authorities and the time zones, both from crates of Cargo.lock. The list of its crates is in the
# binary too, where scanners of images look for it (cargo-auditable). The same sources, compiler and libc make the same
# digest.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
image=${1:-${CARGO_TARGET_DIR:-target}/image}
mkdir -p "$image"
image=$(realpath "$image")

case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) echo "error: no image for $(uname -m)" >&2; exit 1 ;;
esac
target=$(uname -m)-unknown-linux-gnu
home=${CARGO_HOME:-$HOME/.cargo}
auditable=$(dev/tools/cargo-auditable.sh)

# No path of this machine is in the binary. With --target the flags do not apply to build scripts and macros.
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$root=/tenantry --remap-path-prefix=$home=/cargo"
export CFLAGS="-ffile-prefix-map=$root=/tenantry -ffile-prefix-map=$home=/cargo"
build=${CARGO_TARGET_DIR:-$root/target}
# As cargo calls a subcommand.
"$auditable" auditable build --release --locked --target "$target" --bin tenantry </dev/null >&2

# The symbols beside the binary.
cp "$build/$target/release/tenantry" "$image/tenantry.full"
objcopy --only-keep-debug "$image/tenantry.full" "$image/tenantry.debug"
(cd "$image" && objcopy --strip-all --add-gnu-debuglink=tenantry.debug tenantry.full tenantry)
rm "$image/tenantry.full"

unset RUSTFLAGS CFLAGS
cargo run --quiet --package tenantry-dev -- \
    image --binary "$image/tenantry" --architecture "$architecture" --to "$image" </dev/null
