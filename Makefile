# Shoal. `make` alone lists what there is.

GO      ?= $(shell command -v go || echo /usr/local/go/bin/go)
export PATH := $(PATH):$(dir $(GO)):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help build shoal demo demo-kubernetes up down test prove bench check fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: shoal ## the binaries, static, into bin/
	cd providers/kubernetes && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o ../../bin/shoal-provider-kubernetes .

shoal:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/ ./cmd/...

demo: ## install what is missing, show a pool at work, leave nothing behind
	@scripts/setup demo
	@$(MAKE) --no-print-directory shoal
	@scripts/demo

demo-kubernetes: ## the same with pods, on a Kubernetes of two nodes that is made for it; one node dies
	@scripts/setup test
	@$(MAKE) --no-print-directory build
	@cd providers/kubernetes && SHOAL_DEMO=1 $(GO) test -count=1 -timeout 30m -run 'TestLost/demo' # without a package, so that what it says is seen

up: ## the same, and leave it running
	@scripts/setup demo
	@$(MAKE) --no-print-directory shoal
	@scripts/demo up

down: ## stop what `make up` left running, and remove it
	@scripts/demo down

test: ## install what is missing, run every test
	@scripts/setup test
	@$(MAKE) --no-print-directory build
	@scripts/test

prove: ## the full counts, for hours; goes on where it stopped; writes prove.json
	@scripts/setup test
	@$(MAKE) --no-print-directory build
	@$(GO) run ./internal/prove

bench: ## measure against the peers, write bench.json
	@scripts/setup bench
	@$(MAKE) --no-print-directory build
	@$(GO) run ./internal/bench

check: ## a quick look at a change: format, vet, rules of the house, shell scripts
	@scripts/check

fuzz: ## every fuzz target for FUZZTIME (30s) each
	@scripts/fuzz

clean: ## remove what was built
	rm -rf bin
