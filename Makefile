# What a person does with this checkout. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help demo up down test check bench tools

TARGET := $(or $(CARGO_TARGET_DIR),target)
DEV := $(TARGET)/release/tenantry-dev
# Most tests wait most of the time, for Leases and outages.
export RUST_TEST_THREADS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: tools ## From nothing to provisioned tenants, on a cluster and a PostgreSQL of its own (EXISTING=1: on yours)
	@echo "== building the operator (the first time takes some minutes)"
	@cargo build --release --workspace --bins
	@$(DEV) demo $(if $(filter 1,$(EXISTING)),--existing)

up: tools ## The same environment in the background, without the examples; again: starts what died
	@cargo build --release --workspace --bins
	@$(DEV) up

down: tools ## Stops what `make up` or `make demo` started, and removes its data
	@test -x $(DEV) || cargo build --release --workspace --bins
	@$(DEV) down

test: tools ## All tests, from nothing
	@cargo build --workspace --all-targets
	@$(TARGET)/debug/tenantry-dev prepare
	@cargo test --workspace

check: tools ## Formatting, lints and the quick tests
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo test --workspace --lib --test crds --test tidy

bench: tools ## What a tenant takes and costs: times, SQL statements, sessions, API writes
	@cargo build --release --workspace --bins
	@$(DEV) bench

# One line each for what cannot be fetched from here.
tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: install the stable toolchain with rustup" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc (Debian, Ubuntu: apt install build-essential)" >&2; exit 1; }
	@command -v setpriv >/dev/null || { echo "setpriv is missing: install util-linux (and run this on Linux)" >&2; exit 1; }
