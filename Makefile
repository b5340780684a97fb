# The commands a newcomer needs. Each says what it does, installs what is missing on Debian and
# Ubuntu, and elsewhere says exactly what to type.

CONF ?= popup.conf
URL ?= http://example.com/

.DEFAULT_GOAL := help
.PHONY: help run try test lint package image run-azure-sim bench bench-soak bench-crypto bench-cold-start clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build a release and start the VPN's handler on 127.0.0.1:7071
	@scripts/run.sh

try: ## Bring CONF (popup.conf) up with a real wg-quick in a namespace of its own and fetch URL
	@scripts/try.sh '$(CONF)' '$(URL)'

test: ## Run every check and every test (as root, or with sudo: some make network namespaces)
	@scripts/test.sh

lint: ## Only what reads the code: rustfmt, clippy, shell, Dockerfile, workflows, Bicep
	@scripts/lint.sh

package: ## Make the package for Azure Functions, target/package/popup-vpn.zip
	@scripts/package.sh

image: ## Build the gateway's image without a registry, as the tests do
	@scripts/build-image-offline.sh

run-azure-sim: ## Run everything against simulations of Azure, in namespaces of its own (root)
	@scripts/run-azure-sim.sh

bench: ## Measure the gateway against its neighbours, in namespaces (root); ARGS="--quick" for a short run
	@scripts/bench.sh $(ARGS)

bench-soak: ## Carry 20 GB through the gateway and check every byte (root)
	@scripts/bench.sh soak 20 $(ARGS)

bench-crypto: ## Time what one packet costs in each library that could carry it
	@cd bench/crypto && CARGO_TARGET_DIR=../../target/bench-crypto cargo bench --locked

bench-cold-start: ## Time the handler from its start to its first answer
	@cargo bench -p popup-vpn --bench cold_start

clean: ## Remove everything that was built
	cargo clean
