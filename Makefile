# The few commands that everybody needs. CONTRIBUTING.md has those for developers (cargo xtask …).
#
#   make run                               build everything, run a container in a virtual machine
#   make test                              all tests (as root)
#   make build                             programs, guest kernel and guest image in target/cofferdam
#   make install [PREFIX=…] [DESTDIR=…]    what `make build` made
#   make uninstall [PREFIX=…] [DESTDIR=…]  exactly that
#   make bench                             timings and memory, beside other runtimes
#   make soak                              hundreds of containers, and then nothing of them

PREFIX ?= /usr/local
CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
PREPARED := $(TARGET)/cofferdam
RUNTIME := $(abspath $(PREPARED))/bin/cofferdam

.PHONY: run build test conformance conformance-runc conformance-crun conformance-cofferdam install uninstall bench soak check deps deps-build deps-run

run: build
	$(CARGO) xtask images busybox
	packaging/demo.sh $(PREPARED) $(TARGET)/images/busybox.oci

build: deps-build
	$(CARGO) xtask build

# Unit and integration tests, those that need KVM (in a test host, where this machine's runs no guests), and the conformance
# cases: on runc and crun, which proves the cases, and on ours. Several suites at a time.
test: deps build
	$(CARGO) xtask images
	$(CARGO) xtask engines --optional
	$(CARGO) xtask testhost --prepare
	$(CARGO) build --locked --package conformance
	$(CARGO) xtask test

conformance: conformance-runc conformance-crun conformance-cofferdam

conformance-runc:
	$(CARGO) run --locked --package conformance -- --runtime runc

conformance-crun:
	$(CARGO) run --locked --package conformance -- --runtime crun --hide-unified-cgroup

conformance-cofferdam:
	$(CARGO) run --locked --package conformance -- --runtime $(RUNTIME) --expect-vm

# What needs neither root nor a virtual machine: formatting, lints, layers, licences, generated documents.
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd vmm/fuzz && $(CARGO) fmt --check && $(CARGO) clippy --locked --no-default-features --all-targets \
		--target-dir $(abspath $(TARGET))/fuzz -- -D warnings
	$(CARGO) xtask layers
	$(CARGO) xtask licenses
	$(CARGO) xtask docs --check

# A short one is part of `make test`.
soak: deps build
	$(CARGO) xtask images
	COFFERDAM_TEST_SOAK=full $(CARGO) test --locked --package harness --test soak

bench: deps build
	$(CARGO) xtask images
	$(CARGO) run --locked --release --package bench -- --write docs/benchmarks.md

install:
	packaging/install.sh install $(PREPARED) $(PREFIX) $(DESTDIR)

uninstall:
	packaging/install.sh uninstall $(PREPARED) $(PREFIX) $(DESTDIR)

deps:
	packaging/deps.sh test

deps-build:
	packaging/deps.sh build

deps-run:
	packaging/deps.sh run
