# make            build ./moult, and in out/ its manual pages and completion
# make demo       replace a running C++ service, check it, roll it back
# make test       install what the tests need, then what CI runs
# make check      what CI runs, without installing anything
# make install    moult installs itself below PREFIX (and DESTDIR)
# make uninstall  remove what make install has placed there

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
bindir  ?= $(PREFIX)/bin
mandir  ?= $(PREFIX)/share/man
docdir  ?= $(PREFIX)/share/doc/moult
unitdir ?= $(PREFIX)/lib/systemd/system

# Go from its own archive is often not in root's PATH.
export PATH := $(PATH):/usr/local/go/bin

# Root, too, is to see which version lies in a user's checkout.
GIT = git -c safe.directory="$(CURDIR)"

# The date on the manual pages: equal sources make equal pages.
export SOURCE_DATE_EPOCH ?= $(shell $(GIT) log -1 --format=%ct 2>/dev/null)

VERSION ?= $(shell $(GIT) describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X main.buildVersion=$(VERSION)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# How many inputs each target of make fuzz gets; in make check it is 40,000.
FUZZRUNS ?= 2000000

.PHONY: all build cross demo test check vet staticcheck unit difftest fuzz fuzz-short bench man completion header install uninstall clean

# The parts of check are in an order that means something.
.NOTPARALLEL:

all: build man completion

# What make install needs is made anew only if it is older than these.
SOURCES := $(shell find cmd internal -type f ! -name '*_test.go' ! -path '*/testdata/*' 2>/dev/null) $(wildcard go.mod go.sum)

# Always: the version is that of the commit, and Go knows what is up to date.
build:
	$(BUILD) -o moult ./cmd/moult
	$(theirs)

moult: $(SOURCES)
	$(BUILD) -o moult ./cmd/moult
	$(theirs)

# What root makes in a user's checkout is the user's, who will want to clean it.
theirs = @[ "$$(id -u)" != 0 ] || chown -R --reference=. $$(ls -d moult out 2>/dev/null)

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

# After so long a package is taken to hang: no machine is that slow.
HANGS = 45m

unit:
	$(GO) test -shuffle=on -timeout $(HANGS) -run '$(CRASHES)' ./internal/deploy
	GORACE=atexit_sleep_ms=0 $(GO) test -race -shuffle=on -tags man -timeout $(HANGS) -skip '$(CRASHES)' ./...

# What the real dynamic loader says: of ten thousand broken programs, of random
# places of libraries, of all that this host has.
DIFFTEST ?= 10000
difftest:
	$(GO) test ./internal/linkcheck -run '^(TestAgainstLoader|TestAgainstMusl|TestLayouts|TestHost)$$' -count=1 -v -timeout 60m -difftest $(DIFFTEST)

# The same inputs each time: what only luck finds is for make fuzz.
fuzz-short:
	FUZZSEED=1 scripts/fuzz 40000

fuzz:
	scripts/fuzz $(FUZZRUNS)

bench: build
	$(GO) run ./internal/bench -moult "$(CURDIR)/moult"

COMMANDS = apply check commit completion diff exec forget gc history install lab \
	pack pin ps recover restart rollback stage status targets verify version
PAGES    = moult.1 $(COMMANDS:%=moult-%.1)

man: out/man/moult.1
completion: out/completion/moult

out/man/moult.1: $(SOURCES)
	rm -rf out/man
	mkdir -p out/man
	$(GO) run -tags man ./cmd/moult man out/man
	$(theirs)

out/completion/moult: $(SOURCES) | moult
	mkdir -p out/completion
	./moult completion zsh > out/completion/_moult
	./moult completion fish > out/completion/moult.fish
	./moult completion bash > out/completion/moult
	$(theirs)

# The C header is found by pkg-config and CMake.
HEADER ?= out/header
header:
	mkdir -p "$(HEADER)"
	$(call headers,$(HEADER))

headers = for file in moult.pc moultConfigVersion.cmake; do \
		sed -e 's|@prefix@|$(PREFIX)|' -e "s|@version@|$$(sed -n 's/^\#define MOULT_VERSION_[A-Z]* //p' include/moult.h | paste -sd.)|" \
			packaging/$$file.in > "$(1)/$$file"; \
	done

# Into the staging root of a package there is nothing to wait for.
INSTALL = ./moult install $(if $(DESTDIR),--no-sync)

# The pages, and what they link to, as they lie here.
DOCS = README.md DESIGN.md CHANGELOG.md CONTRIBUTING.md LICENSE $(wildcard docs/*.md) \
	$(sort $(shell find examples -type f ! -name '*_test.go' ! -path '*/out/*' 2>/dev/null))

# What follows from PREFIX is made elsewhere: here it could be of another one.
install: moult man completion
	$(INSTALL) -D -m 755 -t "$(DESTDIR)$(bindir)" moult
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(mandir)/man1" $(PAGES:%=out/man/%)
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" out/completion/moult
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/zsh/site-functions" out/completion/_moult
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d" out/completion/moult.fish
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/include" include/moult.h
	set -e; $(foreach dir,$(sort $(dir $(DOCS))),$(INSTALL) -D -m 644 -t "$(DESTDIR)$(docdir)/$(dir)" \
		$(foreach file,$(DOCS),$(if $(filter $(dir),$(dir $(file))),$(file)));) \
	chmod 755 "$(DESTDIR)$(docdir)/examples/service/demo.sh"
	set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	for unit in $(UNITS); do sed 's|@bindir@|$(bindir)|' packaging/$$unit > "$$made/$$unit"; done; \
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(unitdir)" "$$made"/*; \
	$(call headers,$$made); \
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/pkgconfig" "$$made/moult.pc"; \
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(PREFIX)/lib/cmake/moult" packaging/moultConfig.cmake "$$made/moultConfigVersion.cmake"

UNITS = $(notdir $(wildcard packaging/*.service packaging/*.timer))

# File by file: the directories hold other programs' too. Those that are moult's
# own go when they are empty.
uninstall:
	rm -f "$(DESTDIR)$(bindir)/moult"
	$(call remove,$(mandir)/man1,$(PAGES))
	$(call remove,$(PREFIX),share/bash-completion/completions/moult share/zsh/site-functions/_moult \
		share/fish/vendor_completions.d/moult.fish include/moult.h share/pkgconfig/moult.pc)
	$(call remove,$(unitdir),$(UNITS))
	$(call remove,$(PREFIX)/lib/cmake/moult,moultConfig.cmake moultConfigVersion.cmake)
	$(call remove,$(docdir),$(DOCS))
	cd "$(DESTDIR)$(docdir)" 2>/dev/null && rmdir -p $(filter-out ./,$(sort $(dir $(DOCS)))) 2>/dev/null || true
	rmdir "$(DESTDIR)$(docdir)" "$(DESTDIR)$(PREFIX)/lib/cmake/moult" 2>/dev/null || true

remove = [ ! -d "$(DESTDIR)$(1)" ] || { cd "$(DESTDIR)$(1)" && rm -f $(2); }

clean:
	rm -rf moult out
