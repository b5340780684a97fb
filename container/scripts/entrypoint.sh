#!/usr/bin/env bash
# Starts the gateway in the best mode that works here, found by trying. What exits with 0 is not to
# be started again.
#
#   GATEWAY_MODE  auto (the default), kernel, raw or socket
#
# `auto` tries them in this order; popup-gateway itself chooses between raw and socket. kernel in
# `auto` means the kernel's own WireGuard. By name it also takes wireguard-go, which needs
# /dev/net/tun and NET_ADMIN. raw needs NET_RAW, and is given up for socket where it does not work.
# popup-gateway supervises every mode, and gives up root in all but kernel mode. Without a lease
# (LEASE_ID), as when the image is run by hand, kernel mode brings up the interface and waits for a
# signal; the other modes are nothing without a handler.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
export KERNEL_PATH=$here/kernel-path.sh
say() { printf '%s\n' "entrypoint: $*" >&2; }

# by_hand: the kernel data path with nobody to supervise it.
by_hand() {
  local waiting=
  # shellcheck disable=SC2317 # called by the trap
  end() {
    trap '' TERM INT
    [ -z "$waiting" ] || kill "$waiting" 2>/dev/null || true
    "$KERNEL_PATH" down
    exit 0
  }
  trap end TERM INT
  "$KERNEL_PATH" up || {
    say "the kernel data path cannot be had here: NET_ADMIN, and either the wireguard module or /dev/net/tun, are needed"
    "$KERNEL_PATH" down
    exit 0
  }
  say "up, public key $(wg show "${SERVER_INTERFACE:-wg0}" public-key)"
  sleep infinity &
  waiting=$!
  wait "$waiting"
}

mode=${GATEWAY_MODE:-auto}
if [ "$mode" = auto ]; then
  if reason=$("$KERNEL_PATH" probe 2>&1); then
    mode=kernel
    say "mode kernel: the kernel's WireGuard can be used"
  else
    say "not kernel: ${reason//$'\n'/; }"
  fi
fi
if [ -z "${LEASE_ID:-}" ]; then
  [ "$mode" = kernel ] || {
    say "without a handler (LEASE_ID is not set) there is only GATEWAY_MODE=kernel: it needs NET_ADMIN, and either the wireguard module or /dev/net/tun"
    exit 0
  }
  by_hand
fi
export GATEWAY_MODE=$mode
exec popup-gateway
