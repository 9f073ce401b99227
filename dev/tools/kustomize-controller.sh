#!/bin/sh
# Prints the path of Flux's kustomize-controller, built first if need be: its CRDs are in crds/ beside it.
exec "$(dirname "$0")/go-tool.sh" kustomize-controller flux/kustomize-controller github.com/fluxcd/kustomize-controller "about three minutes"
