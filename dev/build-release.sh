#!/usr/bin/env bash
# Builds the operator of an earlier release from git, for the test of an upgrade and a rollback, and prints its path:
#
#   dev/build-release.sh [COMMIT]
#
# The default is the last commit before the registry had a compatibility number, which stands in for the last release.
# The build is kept below target/releases; dependencies that this checkout has built are used.
set -euo pipefail
cd "$(dirname "$0")/.."

commit=${1:-b7519fb}
target=${CARGO_TARGET_DIR:-target}
release=$target/releases/$commit
binary=$release/target/debug/tenantry
if [[ ! -x $binary ]]; then
    git cat-file -e "$commit^{commit}" 2>/dev/null ||
        { echo "error: this clone has no commit $commit: fetch the whole history" >&2; exit 1; }
    rm -rf "$release"
    mkdir -p "$release/source" "$release/target/debug"
    git archive "$commit" | tar -x -C "$release/source"
    for part in deps build .fingerprint; do
        [[ ! -d $target/debug/$part ]] || cp -al "$target/debug/$part" "$release/target/debug/"
    done
    (cd "$release/source" && CARGO_TARGET_DIR=../target cargo build --bin tenantry </dev/null >&2)
fi
realpath "$binary"
