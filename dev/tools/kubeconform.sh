#!/bin/sh
# Prints the path of kubeconform, built first if need be: it compares the chart with the API server's schemas.
exec "$(dirname "$0")/go-tool.sh" kubeconform github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0 "about one minute"
