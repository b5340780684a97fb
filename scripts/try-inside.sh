#!/usr/bin/env bash
# The part of try.sh that runs inside the namespaces.
set -euo pipefail

work=$1 conf=$2 url=$3 host=$4
read -r _ # try.sh has laid the cable

# The client's resolver is its own, and so is the place where WireGuard keeps its sockets.
mount --bind "$work/resolv.conf" "$(readlink -f /etc/resolv.conf)"
mkdir -p /run/wireguard /run/resolvconf
mount -t tmpfs tmpfs /run/wireguard
mount -t tmpfs tmpfs /run/resolvconf
resolvconf=$(command -v resolvconf || true)
if [ -z "$resolvconf" ] || [ "$(basename "$(readlink -f "$resolvconf")")" = resolvectl ]; then
  # systemd's resolver would change the machine's DNS from in here.
  mkdir "$work/bin"
  # shellcheck disable=SC2016
  printf '#!/bin/sh\ncase $1 in -a) cat >/etc/resolv.conf ;; *) : >/etc/resolv.conf ;; esac\n' >"$work/bin/resolvconf"
  chmod +x "$work/bin/resolvconf"
  PATH=$work/bin:$PATH
fi

ip link set lo up
ip address add "${host%.1}.2/30" dev wan
ip link set wan up
ip route add default via "$host"

cd "$work"
run() {
  printf '\n$ %s\n' "$*"
  "$@"
}
run wg-quick up "./$conf" 2>&1
trap 'wg-quick down "./$conf" >/dev/null 2>&1' EXIT

gateway=$(sed -n 's/^Address *= *\([0-9]*\.[0-9]*\.[0-9]*\)\..*/\1.1/p' "$conf" | head -n 1)
if ! run ping -c 3 -i 0.3 -W 5 "$gateway"; then
  run wg show
  printf '\nThe gateway does not answer. Is the handler running, and has the VPN been started since this file\nwas made? Does a firewall on this machine drop UDP that arrives on popup-try?\n' >&2
  exit 1
fi
if ! run curl --fail --silent --show-error --max-time 20 --output /dev/null \
  --write-out '%{http_code} from %{remote_ip}, %{size_download} bytes in %{time_total} s\n' "$url"; then
  printf '\nThe tunnel works, but %s could not be fetched through it. Can this machine fetch it itself?\nAnother one: make try URL=http://…\n' "$url" >&2
  exit 1
fi
run wg show
