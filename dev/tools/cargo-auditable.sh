#!/bin/sh
# Prints the path of cargo-auditable, built first if need be: it writes the list of crates into the operator's binary.
exec "$(dirname "$0")/cargo-tool.sh" cargo-auditable 0.7.7 "one minute"
