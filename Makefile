# `make demo` and `make test` are all that most people need; the rest is what they are made of.

TARGET ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/x86_64-unknown-linux-gnu
# Tests on the bed share two cores, and mostly wait; more at once only make each slower.
E2E_THREADS ?= 3

.PHONY: help packages test-packages demo demo-down test test-fast test-engine test-engine-15 test-engine-16 test-engine-17 test-engine-18 test-bed test-e2e chaos bench-failover bench-git bench-steady bench-scale bench-pgbench mutants sim-fresh image lint generate check-generated deny sim

help: ## What there is
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: image ## A real Kubernetes, Holdfast on it, and a Git commit that becomes a running database
	@cargo build -q -p holdfast-bed -p holdfast-e2e
	@PATH=$(TARGET)/debug:$$PATH $(TARGET)/debug/demo

demo-down: ## Take the demo away again
	@cargo build -q -p holdfast-bed -p holdfast-e2e
	@$(TARGET)/debug/demo --down

packages: ## Debian's packages that compiling needs, installed when root, named when not
	@tests/packages.sh build

test-packages:
	@tests/packages.sh build test

image: packages ## The program that goes into the image
	@echo "building Holdfast (the first time about 6 min, then seconds)"
	@cargo build -q --profile image -p holdfast -p holdfast-agent --bins

test: test-packages deny lint check-generated test-fast test-engine test-engine-17 mutants sim-fresh test-bed test-e2e ## Everything; the same that CI runs

test-fast: packages ## Without a cluster and without engines; under a minute warm
	cargo test --workspace --exclude holdfast-postgres --exclude holdfast-agent
	cargo test -p holdfast-postgres -p holdfast-agent --lib --bins

test-engine: test-packages ## What talks to an engine, with the PostgreSQL that is installed
	cargo test -p holdfast-postgres -p holdfast-agent --tests

test-engine-17: ## What talks to an engine, with PostgreSQL 17 from the bed's image (root); 15, 16, 18: test-engine-15 and so on
test-engine-15 test-engine-16 test-engine-17 test-engine-18: test-engine-%:
	@cargo build -q -p holdfast-bed
	images=$$($(TARGET)/debug/bed images --postgres $*) && \
		HOLDFAST_ENGINE_IMAGE=$$(realpath "$$(echo "$$images" | tail -n 1)") \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(abspath tests/engine.sh) $*" \
		cargo test -p holdfast-postgres -p holdfast-agent --tests $(if $(filter 17 18,$*),-- --include-ignored)

mutants: ## The simulator finds every deliberate protocol bug
	cargo test -q -p holdfast-sim --features mutants --test mutants

test-e2e: image ## The promises, on the bed
	cargo build -q -p holdfast-bed
	cargo test -p holdfast-e2e --test promises -- --ignored --test-threads=$(E2E_THREADS)
	cargo test -p holdfast-e2e --test gitops -- --ignored --test-threads=$(E2E_THREADS)
	cargo test -p holdfast-e2e --test faults -- --ignored --test-threads=1 --nocapture

RUNS ?= 500
chaos: image ## RUNS random faults with the ledger running (make chaos RUNS=500); evidence in target/chaos
	@cargo build -q -p holdfast-bed -p holdfast-e2e --bins
	@PATH=$(abspath $(TARGET))/debug:$$PATH $(TARGET)/debug/chaos --runs $(RUNS) --keep target/chaos

bench-failover: image ## Holdfast beside Patroni: what clients see of a crash, a silent node, a switchover, a lost standby
	@cargo build -q -p holdfast-bed -p holdfast-e2e --bins
	@PATH=$(abspath $(TARGET))/debug:$$PATH $(TARGET)/debug/bench-failover

bench-git: image ## What 10,000 objects from Git cost under Holdfast and, in more than an hour, under Flux: seconds, and requests to the API server
	@cargo build -q -p holdfast-bed -p holdfast-e2e
	@mkdir -p target/bench && $(TARGET)/debug/bench_git --json target/bench/git.json

bench-steady: image ## What a replica set costs when nothing happens (agents, requests), and how soon a new one is Ready
	@cargo build -q -p holdfast-bed -p holdfast-e2e --bins
	@mkdir -p target/bench && PATH=$(abspath $(TARGET))/debug:$$PATH $(TARGET)/debug/bench-steady --json target/bench/steady.json

bench-scale: image ## What the operator costs with 1,000 sets of three, their members stood in for
	@cargo build -q -p holdfast-bed -p holdfast-e2e --bins
	@mkdir -p target/bench && PATH=$(abspath $(TARGET))/debug:$$PATH $(TARGET)/debug/bench-scale --json target/bench/scale.json

bench-pgbench: image ## Transactions per second and latency under Holdfast, beside plain PostgreSQL with the same settings
	@cargo build -q -p holdfast-bed -p holdfast-e2e --bins
	@PATH=$(abspath $(TARGET))/debug:$$PATH $(TARGET)/debug/bench-pgbench

test-bed: ## The bed's own tests, which show that each fault is real
	cargo test -p holdfast-bed -- --ignored --test-threads=1

# Built as part of the program, so that it shares the program's dependencies: seconds after `make image`.
SIM = cargo build -q --profile image -p holdfast -p holdfast-agent -p holdfast-sim --bin holdfast-sim && nice -n 19 $(TARGET)/image/holdfast-sim
N ?= 1000000
SIM_SECONDS ?= 60
# Other histories for each commit, the same for one commit wherever it is tested.
SIM_SEED ?= $$(( 0x$$(git rev-parse --short=8 HEAD 2>/dev/null || date +%s) ))

sim: ## N fresh histories of the simulator (make sim N=1000000)
	@$(SIM) run --histories $(N) --seed $$(date +%s)00000

sim-fresh: ## 60 s of histories that no commit before had; a failing one is told as a story, with the seed
	@$(SIM) run --histories $(N) --seconds $(SIM_SECONDS) --seed $(SIM_SEED)00000

deny: ## Licences, sources and duplicates of what we build on
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny (about 4 min)"; cargo install -q --locked --debug cargo-deny; }
	cargo fetch --locked -q
	cargo deny check bans licenses sources

lint: ## Format, clippy, and that core cannot do I/O
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@tree=$$(cargo tree -p holdfast-core -e normal --prefix none) && \
		{ ! echo "$$tree" | grep -E '^(tokio|hyper|kube-client|reqwest|rustix|nix) ' || { echo "core can do I/O: see above"; exit 1; }; }

generate: ## CRDs and the charts' copies of them
	cargo run -q -p holdfast --bin holdfast -- crds --out crds --chart charts/holdfast-crds/templates

check-generated: generate ## Generated files are as committed
	@git diff --exit-code -- crds charts || { echo "run make generate and commit"; exit 1; }
	@new=$$(git ls-files --others --exclude-standard -- crds charts) && [ -z "$$new" ] || { echo "not committed: $$new"; exit 1; }
