#!/bin/sh
# Prints the path of the program that evaluates objects as Flux, Helm 4 and Argo CD do, built first if need be: see health/main.go.
exec "$(dirname "$0")/go-tool.sh" health health . "about one minute"
