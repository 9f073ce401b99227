#!/bin/sh
# Prints the path of rust-audit-info, built first if need be: it reads the list of crates of a binary.
exec "$(dirname "$0")/cargo-tool.sh" rust-audit-info 0.5.4 "half a minute"
