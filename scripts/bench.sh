#!/usr/bin/env bash
# bench.sh [OPTION]…: measures the gateway against what a user would pick instead, in network
# namespaces of its own, and writes the table, target/bench/results.json and docs/BENCHMARKS.md.
# `bench.sh --help` names the options. What is missing is installed or built first, as pinned.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

peers=$tools/bench
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# fetch SUITE VERSION SHA256: gets Debian's wireguard-go of another suite, without installing it.
fetch() {
  local suite=$1 version=$2 sum=$3 mirror apt=$peers/apt
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
  [ -n "$mirror" ] || return 1
  rm -rf "$apt"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/unpacked"
  echo "deb [signed-by=$keyring] $mirror $suite main" >"$apt/sources.list"
  local options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=)
  apt-get "${options[@]}" update >&2 || return 1
  (cd "$apt" && apt-get "${options[@]}" download "wireguard-go=$version" >&2) || return 1
  echo "$sum  $(echo "$apt"/wireguard-go_*.deb)" | sha256sum --check --quiet >&2 || return 1
  dpkg-deb -x "$apt"/wireguard-go_*.deb "$apt/unpacked" || return 1
  cp "$apt/unpacked/usr/bin/wireguard-go" "$peers/wireguard-go" || return 1
  echo "wireguard-go $version (Debian $suite)" >"$peers/wireguard-go.version"
  rm -rf "$apt"
}

# A wireguard-go with UDP GSO and GRO, as client of all and as a peer. Old ones would flatter us.
need_wireguard_go() {
  if [ -x "$peers/wireguard-go" ] && ! grep -q "the system's" "$peers/wireguard-go.version"; then
    return
  fi
  mkdir -p "$peers"
  local reason
  if [ "$(uname -m)" != x86_64 ]; then
    reason="no package is pinned for $(uname -m)"
  elif ! have apt-get || ! [ -r "$keyring" ]; then
    reason="this is no Debian"
  else
    say "fetching a current wireguard-go (once; it stays in target/tools)"
    fetch sid 0.0.20260522-1 12ed4b9ae95bc6b1918aa0269ec3df6e97f68f94213a4cb62411005dc8042adb && return
    fetch trixie 0.0.20231211-1+b9 cce54ea802611a45d07d1053ff285ea9f1a8f15499f3b86ccd8edd2b81ed7f7e && return
    reason="neither pinned package can be had"
  fi
  need wireguard-go=wireguard-go
  local version
  version=$(wireguard-go --version 2>/dev/null | sed -n '1s/^wireguard-go //p')
  say "taking the system's wireguard-go $version, since $reason: without UDP GSO it is slower"
  cp "$(command -v wireguard-go)" "$peers/wireguard-go"
  echo "wireguard-go $version (the system's, since $reason)" >"$peers/wireguard-go.version"
}

need_rust
need cc=build-essential ip=iproute2 tc=iproute2 ethtool=ethtool iptables=iptables wg=wireguard-tools \
  unshare=util-linux nsenter=util-linux taskset=util-linux setpriv=util-linux chrt=util-linux
need_wireguard_go
scripts/tools.sh boringtun-cli
need_crate wgslirpy wgslirpy 0.2.0
echo "wgslirpy 0.2.0" >"$tools/bin/wgslirpy.version"
cargo build --release --locked -p popup-bench -p popup-gateway

as_root target/release/popup-bench "$@" --tools target/release --tools "$peers" --tools "$tools/bin"
# What is no run, or puts its results elsewhere, leaves the document as it is.
case " $* " in
*" soak "* | *" report "* | *" --help "* | *" -h "* | *" --results"*) ;;
*) target/release/popup-bench report --document docs/BENCHMARKS.md >/dev/null ;;
esac
