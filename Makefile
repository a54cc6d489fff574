# Every target works in a fresh clone with Go and nothing else; what it needs
# besides it fetches or installs.

SHELL := /bin/bash
GO ?= go
# Everything is built and tested with the corrections of the storage engine that
# scripts/patch-modules.sh makes, and tells the reasons of.
override GOFLAGS := $(filter-out -modfile=%,$(GOFLAGS)) -modfile=$(CURDIR)/build/mod/go.mod
export GOFLAGS
# There is no race detector where an int has 32 bits.
IS32 := $(filter 386 arm mips mipsle,$(or $(GOARCH),$(shell $(GO) env GOARCH 2>/dev/null)))
# The binary is static: it runs on any Linux of its processor.
# The version is that of git describe; asking git again for every build fails in
# a folder of another owner.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
# The clock of a board may be wrong, but not before this.
BUILT := $(shell git log -1 --format=%ct 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X holdfast/cmd/holdfast/gateway.built=$(BUILT)
# Run as a command of its own version: as a tool in go.mod it would raise the
# versions of modules that are part of the gateway.
STATICCHECK := GOFLAGS= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 2s
# Where "make build" puts the program.
OUT ?= build/holdfast
# For "make crash"; SEED repeats the decisions of a run.
ROUNDS ?= 200
SEED ?=
# For "make powercut".
CUTS ?= 60
# For "make field": messages up and down with each kind of module.
UP ?= 50000
DOWN ?= 5000
# Where the gateway runs: every pair is built by "make cross".
PLATFORMS := arm/6 arm/7 arm64 amd64 386

.DEFAULT_GOAL := help
.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

.PHONY: build
build: modules ## Build ./build/holdfast
	$(BUILD) -ldflags '$(LDFLAGS)' -o $(OUT) ./cmd/holdfast

.PHONY: modules
modules:
	@GO=$(GO) scripts/patch-modules.sh

.PHONY: demo
demo: build ## Show the whole job, with an outage and a kill -9
	./build/holdfast demo

.PHONY: run
run: build ## Run the gateway as it is without a configuration
	./build/holdfast run

.PHONY: test
test: test-deps modules ## Run every test, also against real brokers and clients
ifdef IS32
	CGO_ENABLED=0 $(GO) test -count=1 -timeout 30m ./...
else
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 15m ./...
	GOARCH=386 CGO_ENABLED=0 $(GO) vet ./...
	GO=$(GO) scripts/test32.sh
endif

.PHONY: crash
crash: build ## Kill -9 the gateway ROUNDS (200) times under load, check each time
	./build/holdfast crash --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

.PHONY: powercut
powercut: modules ## Cut the power of the store CUTS (60) times (root, FUSE, loop devices)
	$(GO) test -count=1 -timeout 60m -v ./storage/storagetest/powercut -cuts $(CUTS) -images 5 $(if $(SEED),-seed $(SEED))

.PHONY: field
field: modules ## Live a day of field life with each kind of module (mosquitto; up to an hour)
	$(GO) test -count=1 -timeout 90m -v -run ADayOfFieldLife ./cmd/holdfast/e2e -args -field-up $(UP) -field-down $(DOWN)

.PHONY: browser
browser: modules ## Talk to the broker with MQTT.js in node and in Chromium (npm, node, chromium)
	npm install --no-audit --no-fund --no-save --prefix build/mqttjs mqtt@5
	MQTTJS=$(CURDIR)/build/mqttjs/node_modules/mqtt $(GO) test -count=1 -v -run MQTTjs ./cmd/holdfast/e2e

.PHONY: test-deps
test-deps: ## Install what the tests need (Debian packages)
	scripts/test-deps.sh

.PHONY: check
check: format vet imports cross fuzz ## Look for mistakes without running the tests

.PHONY: format
format: ## Say which files gofmt would change
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted, run gofmt -w:"; echo "$$files"; exit 1; fi

.PHONY: vet
vet: modules ## go vet and staticcheck
	$(GO) vet ./...
	$(GO) vet -tags pack ./cmd/holdfast
	$(STATICCHECK) ./...

.PHONY: imports
imports: modules ## Hold the import rule
	$(GO) test -count=1 -run 'Import' .

.PHONY: cross
cross: modules ## Build for every processor
	@for p in $(PLATFORMS); do \
		echo "linux/$$p"; \
		GOOS=linux GOARCH=$${p%/*} GOARM=$${p#*/} $(BUILD) -o /dev/null ./cmd/holdfast || exit 1; \
	done

.PHONY: fuzz
fuzz: modules ## Run every fuzz target for FUZZTIME (2s) each
	FUZZTIME=$(FUZZTIME) GO=$(GO) scripts/fuzz.sh

.PHONY: bench
bench: modules ## Run every benchmark
	$(GO) test -run '^$$' -bench . -skip 'Brokers|Bridges' -benchmem ./...
	$(GO) test -run '^$$' -bench 'Brokers|Bridges' -benchtime 5x -timeout 30m ./cmd/holdfast/e2e

.PHONY: package
package: ## Make the Debian packages, in ./build/package
	GO=$(GO) scripts/package.sh amd64 arm64 armhf

.PHONY: package-test
package-test: ## Make them twice, install, upgrade and remove them, run the unit (root, debootstrap)
	GO=$(GO) scripts/package-test.sh

.PHONY: clean
clean: ## Remove ./build
	rm -rf build
