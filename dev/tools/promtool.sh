#!/bin/sh
# Prints the path of promtool, built first if need be: without the clients of every cloud whose machines Prometheus can
# discover, which rules do not need.
exec "$(dirname "$0")/go-tool.sh" promtool github.com/prometheus/prometheus/cmd/promtool@v0.316.0 "about three minutes" \
    remove_all_sd,netgo
