# sealboot: an encrypted disk, booted on a machine that you do not trust.
# `make help` lists the targets.

export CGO_ENABLED = 0
# e2fsprogs, cryptsetup and sgdisk stand where an ordinary user does not look.
export PATH := $(PATH):/usr/sbin:/sbin
GO ?= go
PREFIX ?= /usr/local
FUZZTIME ?= 20s

.PHONY: help deps deps-demo build install packer demo test test-full test-packer bench fuzz lint clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

deps: ## install or fetch the tools that demo and tests need
	deps/deps.sh

deps-demo:
	deps/deps.sh --demo

build: ## build the programs into bin/
	$(GO) build -trimpath -ldflags '-s -w' -o bin/ ./cmd/...

install: ## put the programs that are in bin/ into $(DESTDIR)$(PREFIX)/bin (run make build first)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(addprefix bin/,$(notdir $(wildcard cmd/*))) $(DESTDIR)$(PREFIX)/bin

packer: ## build Packer's plugin into bin/; it fetches the modules of Packer's SDK, 65 MB
	$(GO) -C packer build -trimpath -ldflags '-s -w' -o ../bin/packer-plugin-sealboot .

demo: deps-demo build ## build and boot an encrypted disk, then a tampered one
	$(GO) run ./e2e/demo

test: deps build ## unit tests, fuzz seeds, command scripts, boots in QEMU
	$(GO) vet ./...
	$(GO) test -timeout 14m ./...

test-packer: deps ## the plugin's tests, and Packer itself with it; builds Packer once: 250 MB of modules, some minutes
	$(GO) -C packer vet ./...
	$(GO) -C packer test ./...
	packer=$$(deps/packer.sh) && SEALBOOT_PACKER=$$packer $(GO) test -timeout 14m -run TestPacker ./e2e

test-full: deps build ## also whole Debian systems: made, encrypted, booted, upgraded (half an hour)
	SEALBOOT_FULL=1 $(GO) test -v -timeout 90m -run 'Debian' ./e2e

bench: deps build ## speed, beside the tools a user would otherwise take
	e2e/bench.sh

fuzz: ## fuzz every parser, $(FUZZTIME) each
	e2e/fuzz.sh $(FUZZTIME)

lint: ## formatting, vet, shell scripts
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	@if command -v shellcheck >/dev/null; then shellcheck $$(git ls-files '*.sh' .ci/run); else echo 'lint: shellcheck is not installed: scripts are not looked at'; fi

clean: ## remove what was built; the fetched dependencies in .cache stay
	rm -rf bin demo.out
