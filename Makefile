# `make run` shows Garam at work, `make test` checks everything. The target folder may be moved with CARGO_TARGET_DIR.
TARGET := $(or $(CARGO_TARGET_DIR),target)
ARGS ?=

.PHONY: run test check bench

# One machine, real processes: garam quickstart starts a core and an agent. ARGS="--seconds 20 -o json" and the like.
run:
	@cargo build --locked -p garam-core -p garam-agent
	@$(TARGET)/debug/garam quickstart $(ARGS)

# Everything that a change must pass.
test:
	@.ci/check

# The quick part, for between two edits.
check:
	@.ci/check fmt clippy tests

# Measured claims, e.g. make bench ARGS="ship --codec zstd -o json".
bench: ARGS := $(or $(ARGS),ship --codec zstd)
bench:
	@$(if $(filter refine,$(firstword $(ARGS))),,cargo build -q --release --locked -p garam-core -p garam-agent)
	@cargo run -q --release --locked -p garam-soak $(if $(filter refine,$(firstword $(ARGS))),--features bench-refine) -- bench $(ARGS)
