# The commands of this checkout. `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo up down test test-all check bench image manifests tools

TARGET := $(or $(CARGO_TARGET_DIR),target)
DEV := $(TARGET)/release/tenantry-dev
# The release build of the operator and of the environment, and the control plane beside it.
BUILD := dev/build.sh --release --workspace --bins
EXPECT := == building the operator: about four minutes on two cores, once per checkout; beside the control plane, about eight
# Most tests wait most of the time, for Leases and outages.
export RUST_TEST_THREADS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 2)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: tools ## From nothing to provisioned tenants, on a cluster and a PostgreSQL of its own (EXISTING=1: on yours)
	@test -x $(DEV) || echo "$(EXPECT)"
	@$(if $(filter 1,$(EXISTING)),CONTROL_PLANE=0) $(BUILD)
	@$(DEV) demo $(if $(filter 1,$(EXISTING)),--existing)

up: tools ## The same environment in the background, without the examples; again: starts the parts that have ended
	@test -x $(DEV) || echo "$(EXPECT)"
	@$(BUILD)
	@$(DEV) up

down: tools ## Stops the environment of `make up` or `make demo`, and removes its data
	@test -x $(DEV) || cargo build --release --workspace --bins
	@$(DEV) down

test: tools ## All tests, from nothing
	@test -d $(TARGET)/debug/deps || echo "== building the tests: about six minutes on two cores, once per checkout; beside the control plane and Helm, about twelve"
	@dev/build.sh --workspace --all-targets
	@$(TARGET)/debug/tenantry-dev prepare
	@cargo test --workspace

test-all: test ## All tests, and the slow rest: default Lease times, long outages, real tools, commands of the documentation, figures in seconds
	@cargo test --test postgres --test cluster --test faults --test leader --test chart --test gitops --test docs -- --ignored --test-threads=1 --nocapture

check: tools ## Formatting, lints and the quick tests
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo test --workspace --lib --test crds --test tidy

bench: tools ## How long provisioning takes and what a tenant costs: times, SQL statements, sessions, API writes
	@$(BUILD)
	@$(DEV) bench

image: tools ## The operator's image as an OCI layout, without a container engine: target/image
	@command -v objcopy >/dev/null || { echo "objcopy is missing: install binutils" >&2; exit 1; }
	@dev/image.sh

manifests: ## The chart's copies of CRDs and plans, and manifests/: the chart as plain YAML, for those without Helm
	@cp crds/*.yaml charts/tenantry/files/crds/
	@cp examples/plans/*.yaml charts/tenantry/files/plans/
	@dev/manifests.sh

# One line for each tool that cannot be fetched from here.
tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: install the stable toolchain with rustup" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc (Debian, Ubuntu: apt install build-essential)" >&2; exit 1; }
	@command -v bash >/dev/null || { echo "bash is missing: install bash" >&2; exit 1; }
	@command -v setpriv >/dev/null || { echo "setpriv is missing: install util-linux (and run this on Linux)" >&2; exit 1; }
