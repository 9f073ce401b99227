#!/usr/bin/env bash
# Renders the chart as plain manifests, for those without Helm:
#
#   dev/manifests.sh [DIRECTORY]    by default manifests/
#
# The CRDs are in crds/. tenantry-dev installs the rights of its operators from these files.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
to=${1:-$root/manifests}
helm=$("$root/dev/tools/helm.sh")

# The values that a user of plain manifests edits in the file are those of charts/tenantry/values.yaml.
render() {
    {
        echo "# Rendered from charts/tenantry by \`make manifests\`: change it there."
        # No comments about templates, and no empty lines.
        "$helm" template tenantry "$root/charts/tenantry" --namespace tenantry-system --skip-tests \
            --set image.repository=tenantry --set crds.install=false "$@" | sed '/^# Source: /d; /^$/d'
    } >"$to/new"
}
render --set admission.recordUsers=false
mv "$to/new" "$to/tenantry.yaml"
render --set admission.recordUsers=false --set watch.clusterWide=true
mv "$to/new" "$to/cluster-wide.yaml"
# Apart: an API server before Kubernetes 1.36 does not know the kinds.
render --set admission.recordUsers=true --show-only templates/changes.yaml
mv "$to/new" "$to/actors.yaml"
# For such a one: the webhook records users instead.
render --set admission.recordUsers=webhook --show-only templates/changes.yaml
mv "$to/new" "$to/actors-webhook.yaml"
