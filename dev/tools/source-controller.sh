#!/bin/sh
# Prints the path of Flux's source-controller, built first if need be: its CRDs are in crds/ beside it.
exec "$(dirname "$0")/go-tool.sh" source-controller flux/source-controller github.com/fluxcd/source-controller "about three minutes"
