# Shared by the scripts beside it; not to be run. Sourced after `set -euo pipefail`.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/target/tools
# System administration programs are not on every user's path.
export PATH=$PATH:/usr/sbin:/sbin:$tools/bin
cd "$root" || exit

say() { printf '%s\n' "$*" >&2; }
step() { printf '\n== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND…: runs it as root.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo -- "$@"
  else
    die "this needs root, and there is no sudo; as root, type: $*"
  fi
}

# need_rust: fails with what to type when cargo is missing.
need_rust() {
  if ! have cargo && [ -r "$HOME/.cargo/env" ]; then
    # shellcheck source=/dev/null
    . "$HOME/.cargo/env"
  fi
  have cargo || die "Rust is missing. Install it with
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
then open a new shell and type this command again."
}

# need PROGRAM=PACKAGE…: installs the Debian packages whose programs are missing.
need() {
  local pair missing=() packages=()
  for pair in "$@"; do
    if ! have "${pair%%=*}"; then
      missing+=("${pair%%=*}")
      packages+=("${pair#*=}")
    fi
  done
  if [ ${#missing[@]} -eq 0 ]; then
    return
  fi
  if have apt-get; then
    say "installing ${packages[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >&2
  else
    other_systems "${missing[*]}"
  fi
}

other_systems() {
  die "these programs are missing: $1. Install what has them:
  Fedora:  sudo dnf install gcc make curl iproute iputils bind-utils util-linux wireguard-tools openresolv ShellCheck chromium
  Arch:    sudo pacman -S --needed gcc make curl iproute2 iputils bind util-linux wireguard-tools wireguard-go openresolv shellcheck chromium
  Alpine:  sudo apk add build-base curl iproute2 iputils bind-tools util-linux wireguard-tools wireguard-go openresolv shellcheck chromium bash
  macOS:   the gateway and its tests need Linux; use a virtual machine
wireguard-go, where there is no package: https://git.zx2c4.com/wireguard-go/about/"
}

# need_crate PROGRAM CRATE VERSION: builds a program once, into target/tools.
need_crate() {
  if ! have "$1"; then
    say "building $2 $3 (once; it stays in target/tools)"
    cargo install --quiet --locked --root "$tools" --version "$3" "$2"
  fi
}
