#!/bin/sh
# Prints the path of crane, a client and a server of container registries, built first if need be.
exec "$(dirname "$0")/go-tool.sh" crane github.com/google/go-containerregistry/cmd/crane@v0.22.1 "about one minute"
