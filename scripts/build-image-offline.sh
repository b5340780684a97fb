#!/usr/bin/env bash
# build-image-offline.sh [TAG]: builds container/Dockerfile, unchanged, where no registry can be
# reached. The two bases are made here and tagged as the Dockerfile names them: a busybox system
# whose `apk` installs this machine's own programs under Alpine's package names, and one whose
# `cargo` hands over the program that this machine's cargo has built. For tests only: what it makes
# is neither Alpine nor small.
#
#   POPUP_GATEWAY  a static popup-gateway; built for musl when unset
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

tag=${1:-localhost/popup-gateway:offline}
need podman=podman buildah=buildah runc=runc wg=wireguard-tools wireguard-go=wireguard-go iptables=iptables conntrack=conntrack ip=iproute2
[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || need_static_busybox=1
[ -z "${need_static_busybox:-}" ] || as_root apt-get -qq install -y --no-install-recommends busybox-static >&2

need_rust
gateway=${POPUP_GATEWAY:-}
if [ -z "$gateway" ]; then
  need musl-gcc=musl-tools
  rustup target add x86_64-unknown-linux-musl 2>/dev/null
  cargo build --release --locked --package popup-gateway --target x86_64-unknown-linux-musl
  gateway=$root/target/x86_64-unknown-linux-musl/release/popup-gateway
fi

export CONTAINERS_CONF=$root/tests/container/containers.conf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# system DIRECTORY: busybox, laid out as Debian and (from 3.23) Alpine do.
system() {
  mkdir -p "$1"/usr/{bin,sbin,lib,lib64,local/bin} "$1"/{etc,proc,sys,dev,run,tmp,root,var}
  chmod 1777 "$1/tmp"
  local directory applet
  for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$1/$directory"; done
  cp /bin/busybox "$1/usr/bin/busybox"
  for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$1/usr/bin/$applet"
  done
  echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
  ln -s /run "$1/var/run"
}

# take DIRECTORY FILE…: copies files with the libraries they need, under /usr.
take() {
  local to=$1 file library
  shift
  for file; do
    case $file in /usr/*) ;; *) file=/usr$file ;; esac
    mkdir -p "$to$(dirname "$file")"
    cp -a "$file" "$to$file"
    if [ -L "$file" ] || ! ldd "$file" >/dev/null 2>&1; then continue; fi
    ldd "$file" | grep -o '/[^ ]*' | while read -r library; do
      case $library in /usr/*) ;; *) library=/usr$library ;; esac
      mkdir -p "$to$(dirname "$library")"
      [ -e "$to$library" ] || cp -L "$library" "$to$library"
    done
  done
}

# package NAME DEBIAN-PACKAGE…: what `apk add NAME` will install.
package() {
  local to=$work/alpine/packages/$1 files
  shift
  mkdir -p "$to"
  mapfile -t files < <(dpkg -L "$@" | grep -E '/(s?bin|lib)/' | grep -v -E '/share/|systemd' | while read -r file; do
    if [ -f "$file" ]; then echo "$file"; fi
  done)
  [ ${#files[@]} -eq 0 ] || take "$to" "${files[@]}"
}

step "bases"
system "$work/alpine"
package bash bash
package conntrack-tools conntrack
package iptables iptables
mkdir -p "$work/alpine/packages/ip6tables/usr/sbin"
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
  ln -s xtables-nft-multi "$work/alpine/packages/${name%%tables*}tables/usr/sbin/$name"
done
package wireguard-go wireguard-go
package wireguard-tools wireguard-tools iproute2
cat >"$work/alpine/usr/sbin/apk" <<'APK'
#!/bin/sh
# Knows `apk add`. A package is a directory.
set -eu
[ "$1" = add ]
shift
for name; do
  case $name in -*) continue ;; esac
  name=${name%%[=~<>]*}
  [ -d "/packages/$name" ] || { echo "apk: no package $name" >&2; exit 1; }
  tar -C "/packages/$name" -c . | tar -C / -x
done
rm -rf /packages
APK
system "$work/rust"
mkdir "$work/rust/handed-over"
cp "$gateway" "$work/rust/handed-over/popup-gateway"
# Cargo reads every member of the workspace, and wants each of their targets to be there.
here=$(pwd -P)
cargo metadata --format-version 1 --no-deps --offline --locked |
  grep -o "\"\(manifest_path\|src_path\)\":\"$here/[^\"]*" | sed "s|.*\"$here/||" >"$work/rust/handed-over/needed"
[ -s "$work/rust/handed-over/needed" ] || die "cargo does not say what the workspace is made of"
cat >"$work/rust/usr/bin/cargo" <<'CARGO'
#!/bin/sh
# Checks what it is asked for, and hands over what was built outside.
set -eu
[ "$*" = "build --release --locked --package popup-gateway --target x86_64-unknown-linux-musl" ]
for file in Cargo.toml Cargo.lock $(cat /handed-over/needed); do
  [ -f "$file" ] || { echo "cargo: $file is not in the image's build: see .dockerignore" >&2; exit 1; }
done
mkdir -p target/x86_64-unknown-linux-musl/release
cp /handed-over/popup-gateway target/x86_64-unknown-linux-musl/release/
CARGO
chmod +x "$work/alpine/usr/sbin/apk" "$work/rust/usr/bin/cargo"

# As root, whose images the tests run.
build() { as_root env CONTAINERS_CONF="$CONTAINERS_CONF" buildah build "$@"; }

# base NAME DIRECTORY: a scratch image of the directory, tagged with the name.
base() {
  printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\n' >"$work/Dockerfile"
  build --quiet --file "$work/Dockerfile" --tag "$1" "$2" >/dev/null
}
bases=$(sed -n 's/^FROM \([^ $]*\).*/\1/p' container/Dockerfile)
base "$(grep rust: <<<"$bases")" "$work/rust"
base "$(grep alpine:3 <<<"$bases" | grep -v rust:)" "$work/alpine"

step "container/Dockerfile"
build --pull-never --isolation chroot --file container/Dockerfile --tag "$tag" \
  --build-arg ALPINE_DIGEST= --build-arg RUST_DIGEST= .
say "built $tag"
