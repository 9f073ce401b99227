#!/bin/sh
# Prints the path of the CRDs of the External Secrets Operator, fetched first if need be: they are files of its Go module.
set -eu
. "$(dirname "$0")/once.sh"

module=github.com/external-secrets/external-secrets@v1.3.2

once "the CRDs of the External Secrets Operator" "external-secrets-${module#*@v}" crds.yaml
needs_go
echo "  fetching $name: a few seconds, once per machine …" >&2
fetch() {
    cd / && go mod download -json "$module"
}
logged fetch
source=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' "$cache/log")
for kind in secretstores clustersecretstores externalsecrets pushsecrets; do
    echo "---"
    cat "$source/config/crds/bases/external-secrets.io_$kind.yaml"
done >"$new/crds.yaml"
finish "$new/crds.yaml"
