#!/usr/bin/env bash
# The image and its scripts, for real: builds container/Dockerfile without a registry, runs it as
# Azure Container Instances would, and its kernel mode by hand. As root; all traffic stays in
# network namespaces that the tests make.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need podman=podman buildah=buildah runc=runc wg-quick=wireguard-tools wireguard-go=wireguard-go \
  iptables=iptables conntrack=conntrack curl=curl ip=iproute2 ping=iputils-ping python3=python3 unshare=util-linux sysctl=procps
# Not on the path, so not found by its name.
[ -x /usr/lib/podman/netavark ] || [ -x /usr/libexec/podman/netavark ] || need netavark=netavark
step "configuration"
tests/container/generate-config.sh
step "kernel mode"
as_root tests/container/kernel-mode.sh
scripts/build-image-offline.sh
step "the image"
as_root tests/container/image.sh
