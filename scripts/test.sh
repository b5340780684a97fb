#!/usr/bin/env bash
# Every check and every test. The end-to-end tests make network namespaces and run real WireGuard
# clients in them, as root; the programs under test run as nobody. All traffic stays in there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_rust
need cc=build-essential shellcheck=shellcheck curl=curl ip=iproute2 ping=iputils-ping dig=dnsutils \
  wg-quick=wireguard-tools wireguard-go=wireguard-go resolvconf=openresolv nft=nftables sysctl=procps unshare=util-linux jq=jq \
  traceroute=traceroute ethtool=ethtool tcpdump=tcpdump tshark=tshark
if ! have chromium && ! have chromium-browser && ! have google-chrome; then
  need chromium=chromium
fi
scripts/tools.sh
scripts/install-stand-ins.sh
scripts/lint.sh

# With the tests, so that both are built with the same features, once.
step "the programs and their tests"
features=popup-stand-ins/installed
cargo build --workspace --all-targets --locked --features "$features"

if [ "$(id -u)" -ne 0 ]; then
  have sudo || die "the end-to-end tests need root, and there is no sudo: run this as root"
  triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${triple}_RUNNER=sudo --preserve-env --preserve-env=PATH"
fi
step "the package"
tests/package.sh target/debug/popup-vpn
scripts/test-container.sh
# Before the tests, whose summary is to be what one reads last.
step "examples in the documentation"
cargo test --workspace --doc --locked
step "tests"
# A thread is half a core: see .config/nextest.toml.
scripts/with-azurite.sh cargo nextest run --workspace --locked --features "$features" --test-threads "$((2 * $(nproc)))"
