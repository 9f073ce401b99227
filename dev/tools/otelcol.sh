#!/bin/sh
# Prints the path of an OpenTelemetry Collector that prints the spans it receives, built first if need be: see otelcol/main.go.
exec "$(dirname "$0")/go-tool.sh" otelcol otelcol . "about three minutes"
