#!/usr/bin/env bash
# try.sh CONF URL: brings CONF up with wg-quick in network, mount and process namespaces of its
# own, which are joined to this machine by a veth pair, and uses it. Nothing is left behind: the
# namespaces, the client and the veth pair end with this script.
set -euo pipefail
conf=$(realpath -m "${1:?usage: try.sh CONF URL}")
url=${2:?usage: try.sh CONF URL}
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ -r "$conf" ] || die "there is no $conf. Start the VPN first:
  curl -f -X POST -H 'Accept: text/plain' localhost:7071/api/start-vpn -o $conf"

if [ "$(id -u)" -ne 0 ]; then
  say "making a network namespace needs root"
  as_root "$root/scripts/try.sh" "$conf" "$url"
  exit
fi
need wg-quick=wireguard-tools ip=iproute2 ping=iputils-ping curl=curl unshare=util-linux sysctl=procps nft=nftables
if ! [ -d /sys/module/wireguard ]; then
  need wireguard-go=wireguard-go
fi

# A pair of addresses from the documentation networks (RFC 5737) or the benchmark network
# (RFC 2544) that this machine does not use itself.
host=
for prefix in 192.0.2 198.51.100 203.0.113 198.18.0; do
  if [ -z "$(ip -4 address show to "$prefix.0/24")$(ip -4 route show root "$prefix.0/24")" ]; then
    host=$prefix.1
    break
  fi
done
[ -n "$host" ] || die "this machine uses every network that the cable to the namespace could have"
link=popup-try
work=$(mktemp -d)
box=
cleanup() {
  if [ -n "$box" ]; then
    # unshare waits through SIGINT and SIGTERM; with it ends everything in there.
    kill -KILL "$box" 2>/dev/null || true
    wait "$box" 2>/dev/null || true
  fi
  ip link delete "$link" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

install -m 600 "$conf" "$work/$(basename "$conf")"
: >"$work/resolv.conf"
mkfifo "$work/go"
unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private -- \
  bash "$root/scripts/try-inside.sh" "$work" "$(basename "$conf")" "$url" "$host" <"$work/go" &
box=$!
exec 9>"$work/go"
inside=
for _ in $(seq 100); do
  inside=$(tr -d ' ' <"/proc/$box/task/$box/children")
  [ -n "$inside" ] && break
  sleep 0.05
done
[ -n "$inside" ] || die "no namespaces can be made here (in a container, run it with --privileged)"

ip link delete "$link" 2>/dev/null || true
ip link add "$link" type veth peer name wan netns "$inside"
ip address add "$host/30" dev "$link"
ip link set "$link" up
echo go >&9
if wait "$box"; then
  box=
  say "all of it worked"
else
  box=
  exit 1
fi
