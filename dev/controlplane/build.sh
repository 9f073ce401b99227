#!/bin/sh
# Prints the path of the control plane's binary. Builds it first if this machine has not built these sources before:
# the binary is cached by a digest of the module's files, outside the checkout. Progress goes to stderr.
set -eu

module=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$module"
kubernetes=$(sed -n 's/^[^/]*k8s\.io\/kubernetes \(v[0-9.]*\).*/\1/p' go.mod | head -n 1)
if [ -z "$kubernetes" ]; then
    echo "$module/go.mod does not require k8s.io/kubernetes" >&2
    exit 1
fi
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: the control plane is cached there}/.cache}
cache=$cache/tenantry/controlplane/$(cat ./*.go go.mod go.sum build.sh | sha256sum | cut -c 1-24)

if ! go=$(go env GOVERSION 2>/dev/null); then
    # Go is needed to build, not to run: a build of these sources by another version will do.
    for binary in "$cache"/*/controlplane; do
        [ -x "$binary" ] && echo "$binary" && exit
    done
    echo "Go is missing: install Go 1.26 or newer to build the control plane for tests and the demo" >&2
    exit 1
fi
binary=$cache/$go/controlplane
if [ -x "$binary" ]; then
    echo "$binary"
    exit
fi

mkdir -p "$cache/$go"
exec 9>"$cache/$go/lock"
if ! flock --nonblock 9; then
    echo "  waiting: another process builds the control plane" >&2
    flock 9
    if [ -x "$binary" ]; then
        echo "$binary"
        exit
    fi
fi

# Without a version the API server reports one that clients cannot parse.
major=${kubernetes#v} minor=${kubernetes#v*.}
major=${major%%.*} minor=${minor%%.*}
link="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    link="$link -X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor"
done

echo "  building Kubernetes $kubernetes for tests and the demo: about four minutes on two cores, once per machine …" >&2
# No cgo: a C compiler would add nothing. No debug information: the compiler would write what the linker drops.
CGO_ENABLED=0 go build -trimpath -gcflags=all=-dwarf=false -ldflags="$link" -o "$binary.new" . \
    >"$binary.log" 2>&1 </dev/null 9>&- &
go=$!
trap 'kill "$go" 2>/dev/null || true' EXIT
trap 'exit 1' HUP INT TERM
parent=$PPID
seconds=0
while kill -0 "$go" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    # The caller was killed: stop the build.
    [ -d "/proc/$parent" ] || exit 1
    if [ $((seconds % 30)) -eq 0 ]; then
        echo "  building Kubernetes $kubernetes … $((seconds / 60)) min $((seconds % 60)) s" >&2
    fi
done
if ! wait "$go"; then
    tail -n 15 "$binary.log" >&2
    echo "building the control plane failed; the whole log: $binary.log" >&2
    exit 1
fi
mv "$binary.new" "$binary"
echo "  building Kubernetes $kubernetes: done in $((seconds / 60)) min $((seconds % 60)) s" >&2
echo "$binary"
