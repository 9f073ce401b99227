#!/bin/sh
# Prints the path of versitygw, an S3 server, built first if need be: the source of the test of Flux.
exec "$(dirname "$0")/go-tool.sh" versitygw github.com/versity/versitygw/cmd/versitygw@v1.8.0 "about two minutes"
