#!/bin/sh
# Prints the path of Helm, built first if need be.
exec "$(dirname "$0")/go-tool.sh" helm helm.sh/helm/v4/cmd/helm@v4.3.2 "about two minutes"
