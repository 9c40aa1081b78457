# make help says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

BIN := bin
VERSION ?= dev
LINT_VERSION := v2.15.0
LINT := $(BIN)/tools/golangci-lint-$(LINT_VERSION)
# Time for each fuzz target: make fuzz T=60s
T ?= 30s
# Arguments of the benchmark: make bench BENCH='-n 1000'
BENCH ?=

.PHONY: help
help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

.PHONY: setup
setup: ## install the Debian or Ubuntu packages that are missing (as root)
	@scripts/setup.sh

.PHONY: build
build: setup ## build bin/callgate
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(BIN)/ ./cmd/callgate

.PHONY: run
run: build ## show callgate at work in an unprivileged container (as root)
	demo/run.sh ./$(BIN)/callgate

# The integration tests start what takes a machine's two CPUs: not beside others.
.PHONY: test
test: setup ## all tests with the race detector; a test that is skipped fails (as root)
	CALLGATE_TEST_REQUIRE=all go test -race -count=1 -timeout 20m $$(go list ./... | grep -v /integration)
	CALLGATE_TEST_REQUIRE=all go test -race -count=1 -p 1 -timeout 20m ./integration/...

.PHONY: unit
unit: setup ## the tests that start no containers
	go test -race $$(go list ./... | grep -v /integration)

.PHONY: bench
bench: setup ## what an intercepted call costs (as root)
	go run ./bench $(BENCH)

.PHONY: lint
lint: setup ## formatting, linters, shell scripts
	@scripts/lint-tool.sh $(LINT_VERSION) $(LINT)
	$(LINT) run ./...
	GOARCH=arm64 CGO_ENABLED=0 go vet ./pkg/... ./emulators/...
	shellcheck .ci/run $$(find . -name '*.sh')

.PHONY: fuzz
fuzz: setup ## each fuzz target for T (30s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(T) "$$package"; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
