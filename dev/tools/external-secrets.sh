#!/bin/sh
# Prints the path of the CRDs of the External Secrets Operator, fetched first if need be: they are files of its Go module.
set -eu

module=github.com/external-secrets/external-secrets@v1.3.2

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: the CRDs are cached there}/.cache}
cache=$cache/tenantry/tools/external-secrets-${module#*@v}
crds=$cache/crds.yaml
if [ -f "$crds" ]; then
    echo "$crds"
    exit
fi
if ! command -v go >/dev/null; then
    echo "Go is missing: install Go 1.26 or newer to fetch the CRDs of the External Secrets Operator" >&2
    exit 1
fi
echo "  fetching the CRDs of the External Secrets Operator: a few seconds, once per machine …" >&2
source=$(cd / && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
mkdir -p "$cache"
new=$(mktemp "$cache/new.XXXXXX")
trap 'rm -f "$new"' EXIT
for kind in secretstores clustersecretstores externalsecrets pushsecrets; do
    echo "---" >>"$new"
    cat "$source/config/crds/bases/external-secrets.io_$kind.yaml" >>"$new"
done
mv "$new" "$crds"
echo "$crds"
