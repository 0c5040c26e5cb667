# make          build ./moult
# make demo     replace a running C++ service, check it, roll it back
# make test     install what the tests need, then what CI runs
# make check    what CI runs, without installing anything
# make install  moult installs itself below PREFIX (and DESTDIR)

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
bindir  ?= $(PREFIX)/bin
mandir  ?= $(PREFIX)/share/man
docdir  ?= $(PREFIX)/share/doc/moult
unitdir ?= $(PREFIX)/lib/systemd/system

# Go from its own archive is often not in root's PATH.
export PATH := $(PATH):/usr/local/go/bin

# The date on the manual pages: equal sources make equal pages.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X main.buildVersion=$(VERSION)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# How long each target of make fuzz runs; in make check it is three seconds.
FUZZTIME ?= 2m

.PHONY: all build cross demo test check vet staticcheck unit difftest fuzz fuzz-short bench man completion units header install clean

# The parts of check are in an order that means something.
.NOTPARALLEL:

all: build

build:
	$(BUILD) -o moult ./cmd/moult

# The other architecture has to build too; it is the one that nobody here runs.
# Programs that replace themselves are for other systems as well.
cross:
	GOOS=linux GOARCH=arm64 $(BUILD) -o /dev/null ./cmd/moult
	set -e; for system in windows/amd64 darwin/arm64 darwin/amd64; do \
		export CGO_ENABLED=0 GOOS=$${system%/*} GOARCH=$${system#*/}; \
		$(GO) vet ./reexec ./examples/selfupdate; \
		$(GO) build -o /dev/null ./examples/selfupdate; \
	done

demo:
	scripts/setup demo
	$(MAKE) build
	MOULT="$(CURDIR)/moult" examples/service/demo.sh

test:
	scripts/setup test
	$(MAKE) check

# The tests come last, so that what they say is the last thing to read.
check: build cross vet staticcheck fuzz-short unit

vet:
	$(GO) vet ./...
	$(GO) vet -tags faults,man ./cmd/moult

staticcheck:
	$(GO) tool staticcheck ./...

# Tests that go through thousands of crashes, one after the other: the race
# detector has nothing to find in them, and takes four times as long.
CRASHES = ^(TestCrash|TestCrashInRecovery|TestMutants|TestFaults|TestInstallCrash|TestInstallMutants)$$

unit:
	$(GO) test -shuffle=on -timeout 14m -run '$(CRASHES)' ./internal/deploy
	GORACE=atexit_sleep_ms=0 $(GO) test -race -shuffle=on -tags man -timeout 14m -skip '$(CRASHES)' ./...

# What the real dynamic loader says: of ten thousand broken programs, of random
# places of libraries, of all that this host has.
DIFFTEST ?= 10000
difftest:
	$(GO) test ./internal/linkcheck -run '^(TestAgainstLoader|TestAgainstMusl|TestLayouts|TestHost)$$' -count=1 -v -timeout 60m -difftest $(DIFFTEST)

fuzz-short:
	scripts/fuzz 3s

fuzz:
	scripts/fuzz $(FUZZTIME)

bench: build
	$(GO) run ./internal/bench -moult "$(CURDIR)/moult"

man:
	rm -rf out/man
	mkdir -p out/man
	$(GO) run -tags man ./cmd/moult man out/man

completion: build
	mkdir -p out/completion
	./moult completion bash > out/completion/moult
	./moult completion zsh > out/completion/_moult
	./moult completion fish > out/completion/moult.fish

units:
	mkdir -p out/units
	for unit in packaging/*.service packaging/*.timer; do \
		sed 's|@bindir@|$(bindir)|' $$unit > out/units/$${unit##*/}; \
	done

# The C header is found by pkg-config and CMake.
HEADER ?= out/header
header:
	mkdir -p "$(HEADER)"
	for file in moult.pc moultConfigVersion.cmake; do \
		sed -e 's|@prefix@|$(PREFIX)|' -e "s|@version@|$$(sed -n 's/^#define MOULT_VERSION_[A-Z]* //p' include/moult.h | paste -sd.)|" \
			packaging/$$file.in > "$(HEADER)/$$file"; \
	done

# Into the staging root of a package there is nothing to wait for.
INSTALL = ./moult install $(if $(DESTDIR),--no-sync)

install: man completion units header
	$(INSTALL) -D -m 755 -t "$(DESTDIR)$(bindir)" moult
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(mandir)/man1" out/man/*.1
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(docdir)" README.md DESIGN.md CHANGELOG.md LICENSE
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(docdir)/docs" docs/*.md
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" out/completion/moult
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/zsh/site-functions" out/completion/_moult
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d" out/completion/moult.fish
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(unitdir)" out/units/*
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/include" include/moult.h
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/pkgconfig" $(HEADER)/moult.pc
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/lib/cmake/moult" packaging/moultConfig.cmake $(HEADER)/moultConfigVersion.cmake

clean:
	rm -rf moult out
