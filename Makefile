# What is done with this project. `make` alone lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Where mount looks for helpers.
SBINDIR ?= /sbin
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET)/release/backstay

# One profile for everything, so that RocksDB is compiled once.
.PHONY: help setup needs servers build demo test test-long test-cluster bench docs install install-mount clean

help:
	@echo 'make demo       build, then back up, change, restore and check real files before your eyes'
	@echo 'make build      build $(PROGRAM)'
	@echo 'make test       format, lints and all tests'
	@echo 'make test-long  also the tests that take minutes'
	@echo 'make test-cluster  also three Garage nodes on this machine, some of which are killed'
	@echo 'make bench      measure each stage'
	@echo 'make docs       make docs/cli.md anew'
	@echo 'make install    install the program, its manual and completions below $(PREFIX)'
	@echo 'make servers    install the servers that some tests start'
	@echo 'make install-mount  make $(SBINDIR)/mount.backstay, for mount -t backstay and fstab'
	@echo 'make setup      install the packages that a build needs (Debian, Ubuntu; as root or with sudo)'

setup:
	scripts/setup --sudo

# Installs what is missing as root, and only tells other users.
needs:
	scripts/setup

# Servers that tests start; where one cannot be installed its tests are skipped.
servers:
	scripts/servers

build: needs
	$(CARGO) build --release

demo: build
	scripts/demo $(PROGRAM)

test: needs servers
	@# Without them some tests are skipped, and say so.
	-scripts/setup --tests
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) test --release

test-long: needs servers
	BACKSTAY_SIM_SEEDS=2000000 $(CARGO) test --release -- --include-ignored

# Garage is compiled the first time. What the test prints is quoted by the guide.
test-cluster: needs
	scripts/cluster
	$(CARGO) test --release --test integration -- --ignored --nocapture cloud::garage

bench: needs
	$(CARGO) bench

docs: needs
	BACKSTAY_BLESS=1 $(CARGO) test --release --lib the_reference_is_current

install: build
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/backstay
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	$(PROGRAM) man --dir $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(PROGRAM) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/backstay
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	$(PROGRAM) completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_backstay
	install -d $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(PROGRAM) completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/backstay.fish

install-mount:
	install -d $(DESTDIR)$(SBINDIR)
	ln -sf $(PREFIX)/bin/backstay $(DESTDIR)$(SBINDIR)/mount.backstay

clean:
	$(CARGO) clean
