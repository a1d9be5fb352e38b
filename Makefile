# onair: everything a fresh clone needs. `make help` lists the targets.
#
# Each target first sees to its own prerequisites by apt (Debian 12, Ubuntu 24.04), asks for sudo only if something is
# missing, and does nothing where nothing is to do. The Rust toolchain is the one thing presumed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(PATH):$(HOME)/.cargo/bin
export DEBIAN_FRONTEND := noninteractive

ARGS ?=
RIG_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rig
export RIG_CACHE

# openh264 (C++, with its assembly by nasm), opus (cmake), cpal (ALSA); libclang is added by name below.
# The tests in network namespaces: iproute2, nftables. The judgement of the unit: systemd, which is not started by that.
PACKAGES := build-essential cmake iproute2 libasound2-dev nasm nftables pkg-config systemd
RIG_PACKAGES := debian-archive-keyring perl python3
RIG_UML_PACKAGES := bc bison flex libc6-dev make gcc xz-utils

# Says a section's name, so that a long log can be read.
define say
printf '\n== %s\n' "$(1)"
endef

# Installs what is missing of a list of packages. Usage: $(call install,"a b c")
define install
missing=; for package in $(1); do
  [ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null || true)" = installed ] || missing="$$missing $$package"
done
if [ -n "$$missing" ]; then
  echo "installing by apt:$$missing"
  root=; [ "$$(id -u)" = 0 ] || { root="sudo"; echo "(asking for sudo, only for this)"; }
  $$root apt-get update -qq
  $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
fi
endef

## help: this list
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## setup: install what building and testing need (apt), check the Rust toolchain
.PHONY: setup
setup: toolchain packages browser
	@echo "setup: all there"

## demo: test card on air in a local lab, as Wowza and as Qencode at once; ARGS="--for 20s --report r.json"
.PHONY: demo
demo: toolchain packages
	@echo "building; the first time this takes about ten minutes on two cores"
	cargo build --locked
	cargo run --locked --quiet -- demo $(ARGS)

## test: format, lints, docs, all tests (as root also those in real networks), then the vendors' own clients in Chromium
.PHONY: test
test: lint
	@$(call say,tests)
	cargo test --locked
	$(MAKE) interop

## lint: format, clippy, docs, the systemd unit; licences and advisories where cargo-deny is installed
.PHONY: lint
lint: toolchain packages
	@$(call say,format)
	cargo fmt --check
	$(call say,clippy)
	cargo clippy --locked --all-targets -- -D warnings
	$(call say,docs)
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(call say,unit)
	if command -v systemd-analyze >/dev/null; then
	  tests/unit
	else
	  echo "skipped: the systemd unit (systemd-analyze is not installed)"
	fi
	if command -v cargo-deny >/dev/null; then
	  $(call say,licences and advisories)
	  if cargo deny fetch db; then
	    cargo deny check --disable-fetch
	  else
	    cargo deny check bans licenses sources
	    echo "skipped: advisories (their database cannot be fetched)"
	  fi
	else
	  echo "skipped: licences and advisories (cargo-deny is not installed: cargo install cargo-deny)"
	fi

## interop: npm ovenlivekit, unmodified, in headless Chromium against the lab
.PHONY: interop
interop: toolchain packages browser
	@$(call say,interop)
	cargo build --locked
	ONAIR="$$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/onair" tests/interop/run

## bench: CPU, memory, latency against their targets
.PHONY: bench
bench: toolchain packages
	@echo "building for release; the first time this takes a quarter of an hour on two cores"
	cargo bench --locked --bench path -- $(ARGS)
	cargo bench --locked --bench watch

## recovery: how long until back on air after each fault, a hundred runs of each; ARGS="ghost --runs 10"
.PHONY: recovery
recovery: toolchain packages
	@echo "twenty minutes on two cores, and nothing else should run meanwhile"
	cargo bench --locked --profile dev --bench recovery -- --together 40 $(ARGS)

## deb: a Debian package of the program and its service, for machines as old as this one (Debian 12, Ubuntu 24.04)
.PHONY: deb
deb: toolchain packages
	@if ! command -v cargo-deb >/dev/null; then
	  echo "installing cargo-deb by cargo, once (some minutes)"
	  cargo install --locked cargo-deb
	fi
	$(call say,program)
	echo "building for release; the first time this takes a quarter of an hour on two cores"
	cargo build --locked --release
	$(call say,package)
	target=$$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
	rm -rf "$$target/release/generated"
	"$$target/release/onair" generate "$$target/release/generated"
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
	maintainer=$$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
	printf 'onair (%s-1) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' "$$version" "$$maintainer" \
	  "$$(git log -1 --format=%cD 2>/dev/null || date -R)" > "$$target/release/generated/changelog.Debian"
	gzip -9 --no-name "$$target"/release/generated/{man/*,changelog.Debian}
	cargo deb --locked --no-build --strip --output "$$target/onair.deb"
	oldest() { objdump -T "$$target/release/onair" | sed -n "s/.*($$1_\([0-9.]*\)).*/\1/p" | sort -uV | tail -n1; }
	echo "needs glibc $$(oldest GLIBC) or newer (Debian 12 has 2.36, Ubuntu 24.04 has 2.39)"
	dpkg-deb --info "$$target/onair.deb" | sed -n 's/^ \(Version\|Depends\|Installed-Size\)/\1/p'
	echo "install it by: sudo apt install $$target/onair.deb"

## rig: a real V4L2 camera, a USB webcam and the package under systemd in a guest machine: pulled, stalled, broken, booted
.PHONY: rig
rig: toolchain packages
	@$(call say,rig: the machine)
	$(call install,$(RIG_PACKAGES))
	root=; [ "$$(id -u)" = 0 ] || { root="sudo env RIG_CACHE=$$RIG_CACHE"; echo "(the guest's root folder is made as root: asking for sudo)"; }
	rig=tests/rig/rig
	[[ "$$($$rig info 2>/dev/null || true)" == *"image: up to date"* ]] || $$root $$rig build
	if [[ "$$($$rig info)" == *"backend: tcg"* ]]; then
	  echo "no usable /dev/kvm: building a User-Mode Linux kernel, once (5 to 15 minutes); emulation would be ten times slower"
	  $(call install,$(RIG_UML_PACKAGES))
	  $$root $$rig build --uml
	fi
	cargo build --locked
	case " $(ARGS) " in "  " | *" service "* | *" boot "*) $(MAKE) deb ;; esac
	tests/rig/run $(ARGS)

.PHONY: toolchain
toolchain:
	@if ! command -v cargo >/dev/null; then
	  echo "onair needs the Rust toolchain; install it with"
	  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
	  exit 1
	fi >&2
	wanted=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	found=$$(cargo --version | cut -d' ' -f2)
	if [ "$$(printf '%s\n' "$$wanted" "$$found" | sort -V | head -n1)" != "$$wanted" ]; then
	  echo "onair needs Rust $$wanted or newer, and this is $$found; update it with: rustup update stable"
	  exit 1
	fi >&2
	for component in fmt clippy; do
	  cargo $$component --version >/dev/null 2>&1 && continue
	  name=$${component/fmt/rustfmt}
	  command -v rustup >/dev/null || { echo "cargo $$component is missing; install $$name" >&2; exit 1; }
	  echo "adding to the toolchain: $$name"
	  rustup component add "$$name"
	done

# The library of clang alone is enough to read V4L2's headers; its package carries the release's own number.
.PHONY: packages
packages:
	@if ! command -v apt-get >/dev/null; then
	  echo "no apt here: see to $(PACKAGES) and libclang yourself"
	  exit 0
	fi
	wanted="$(PACKAGES)"
	if ! ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1; then
	  release() { apt-cache depends libclang-dev 2>/dev/null | sed -n 's/.*Depends: libclang-\([0-9]*\)-dev.*/\1/p' | head -n1; }
	  number=$$(release)
	  if [ -z "$$number" ]; then
	    if [ "$$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
	    number=$$(release)
	  fi
	  wanted="$$wanted libclang1-$${number:?apt knows no libclang-dev}"
	fi
	$(call install,$$wanted)
	if ! command -v nasm >/dev/null; then
	  echo "nasm is missing: openh264 would be built without SIMD, silently, and take three times the CPU" >&2
	  exit 1
	fi

# Ubuntu's chromium is a snap, which cannot be driven here: then the vendors' clients are skipped, by name.
.PHONY: browser
browser:
	@command -v apt-get >/dev/null || exit 0
	. /etc/os-release
	wanted=
	command -v node >/dev/null || wanted="$$wanted nodejs"
	command -v npm >/dev/null || wanted="$$wanted npm"
	if ! command -v chromium >/dev/null; then
	  if [ "$${ID:-}" = ubuntu ]; then
	    echo "skipped: chromium (a snap on Ubuntu); the tests of vendors' clients will be skipped"
	    exit 0
	  fi
	  wanted="$$wanted chromium"
	fi
	$(call install,$$wanted)
