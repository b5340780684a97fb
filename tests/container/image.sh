#!/usr/bin/env bash
# image.sh [IMAGE]: runs the image as Azure Container Instances would, and as one would by hand, and
# a real WireGuard client against it. scripts/build-image-offline.sh makes the image.
#
#   SECCOMP  a seccomp profile, such as docker's own, in place of seccomp.json
#
#   client 198.51.100.2 ── 198.51.100.1 [gateway] 203.0.113.1 ── 203.0.113.10 [internet]
set -euo pipefail
umask 077

image=${1:-localhost/popup-gateway:offline}
here=$(cd "$(dirname "$0")" && pwd)
export CONTAINERS_CONF=$here/containers.conf
[ "$(id -u)" -eq 0 ] || {
  echo "this test makes network namespaces and so needs root: run it with sudo" >&2
  exit 1
}
podman image exists "$image" || {
  echo "there is no image $image: run scripts/build-image-offline.sh" >&2
  exit 1
}

id=popup-$$
link=pc$$
work=$(mktemp -d)
container=
server=
cleanup() {
  [ -z "$container" ] || podman rm --force --time 1 "$container" >/dev/null 2>&1 || true
  ip netns exec "$id-client" wg-quick down "$work/$link.conf" >/dev/null 2>&1 || true
  # By its id, which is the program's own: a function in the background would be one process more,
  # and the program would outlive it.
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  for name in client gateway internet; do ip netns delete "$id-$name" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

failures=0
claim() { # claim TEXT COMMAND…
  local text=$1
  shift
  if "$@" >"$work/claim.log" 2>&1; then
    echo "ok    $text"
  else
    echo "FAIL  $text"
    sed 's/^/      /' "$work/claim.log"
    [ -z "$container" ] || podman logs "$container" 2>&1 | tail -n 8 | sed 's/^/      | /'
    failures=$((failures + 1))
  fi
}
eventually() {
  for _ in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  "$@"
}
absent() { ! "$@"; }
inside() { ip netns exec "$id-$1" "${@:2}"; }
fetch() { inside client curl --silent --show-error --fail --max-time 5 "http://$1/"; }

for name in client gateway internet; do
  ip netns add "$id-$name"
  inside "$name" ip link set lo up
done
cable() { # cable BOX ADDRESS GATEWAY-ADDRESS
  ip -n "$id-$1" link add wan type veth peer name "to-$1" netns "$id-gateway"
  ip -n "$id-$1" address add "$2/24" dev wan
  ip -n "$id-$1" link set wan up
  ip -n "$id-gateway" address add "$3/24" dev "to-$1"
  ip -n "$id-gateway" link set "to-$1" up
}
cable client 198.51.100.2 198.51.100.1
cable internet 203.0.113.10 203.0.113.1
# Instance metadata, which must stay the gateway's own.
ip -n "$id-internet" address add 169.254.169.254/32 dev lo
ip -n "$id-gateway" route add 169.254.169.254 via 203.0.113.10
ip -n "$id-gateway" route add default via 203.0.113.10
mkdir "$work/www"
head -c 5000000 /dev/urandom >"$work/www/index.html"
ip netns exec "$id-internet" python3 -m http.server --directory "$work/www" 80 >/dev/null 2>&1 &
server=$!
for address in 203.0.113.10 169.254.169.254; do
  eventually inside gateway curl --silent --fail --output /dev/null "http://$address/"
done

# The documents, as the handler writes them.
lease=0123456789abcdef0123456789abcdef
expires=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ)
state=$work/state
mkdir -p "$state/control" "$state/status" "$state/keys"
document() { # replaced whole, under a new version
  {
    echo "version: $(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')"
    cat
  } >"$state/new"
  chown --reference="$state" "$state/new"
  mv "$state/new" "$state/$1"
}
peer() { # peer NAME HOST PUBLIC-KEY
  echo "{\"name\": \"$1\", \"public_key\": \"$3\", \"allowed_ips\": [\"10.8.0.$2/32\", \"fd00:8::$2/128\"],
    \"created_at\": \"2026-01-01T00:00:00Z\", \"client\": {\"dns\": [], \"allowed_ips\": [\"0.0.0.0/0\"], \"mtu\": 1420}}"
}
config() { # config REVISION PEER…
  local revision=$1 peers=$2
  shift 2
  peers+=$(printf ', %s' "$@")
  peers=${peers%, }
  document control/config.json <<JSON
{"schema": 1, "revision": $revision, "networks": {"ipv4": "10.8.0.0/24", "ipv6": "fd00:8::/64"}, "ports": [51820],
 "peers": [$peers]}
JSON
}
private=$(wg genkey)
client=$(peer client 2 "$(wg pubkey <<<"$private")")
config 1 "$client"
document control/local.lease.json <<JSON
{"schema": 1, "region": "local", "lease": {"id": "$lease", "started_at": "2026-01-01T00:00:00Z", "expires_at": "$expires"}}
JSON

begin() { # begin OPTION…
  container=$(podman run --detach --network="ns:/run/netns/$id-gateway" --volume "$work:/test" \
    --security-opt "seccomp=${SECCOMP:-$here/seccomp.json}" \
    --env VPN_STATE_DIR=/test/state --env LEASE_ID=$lease --env LEASE_EXPIRES_AT="$expires" "$@" "$image")
}
finish() { # finish WHAT…: SIGTERM, and what must be so afterwards
  local begun took
  begun=$(date +%s%N)
  podman kill --signal TERM "$container" >/dev/null
  ended=$(podman wait "$container")
  took=$((($(date +%s%N) - begun) / 1000000))
  claim "$1: SIGTERM ends it with 0" test "$ended" -eq 0
  claim "$1: within 2 s ($took ms)" test "$took" -lt 2000
  podman rm "$container" >/dev/null
  container=
}
connect() { # connect PUBLIC-KEY
  cat >"$work/$link.conf" <<CONF
[Interface]
PrivateKey = $private
Address = 10.8.0.2/32
MTU = 1420
[Peer]
PublicKey = $1
AllowedIPs = 0.0.0.0/0
Endpoint = 198.51.100.1:51820
PersistentKeepalive = 25
CONF
  inside client wg-quick up "$work/$link.conf" >/dev/null 2>&1
}
same_bytes() { fetch 203.0.113.10 | cmp - "$work/www/index.html"; }
status() { tail -n +2 "$state/status/local.status.json" | python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
is_ready() { [ "$(status ready)" = True ] && [ "$(status lease_id)" = "$lease" ]; }
has_applied() { [ "$(status config_revision)" = "$1" ]; }
has_counted() { status peers | grep -E "'tx_bytes': [0-9]{8}"; }
# What /proc says of every thread of the gateway: nobody, and nothing that nobody may not.
is_nobody() {
  local pid task
  pid=$(podman inspect --format '{{.State.Pid}}' "$container")
  for task in "/proc/$pid/task"/*; do
    [ "$(sed -n 's/^[UG]id:\t//p' "$task/status" | tr '\t\n' '  ')" = "65534 65534 65534 65534 65534 65534 65534 65534 " ] || return
    [ "$(grep -c '^Cap\(Inh\|Prm\|Eff\|Bnd\|Amb\):\s0000000000000000$' "$task/status")" -eq 5 ] || return
    grep -q '^NoNewPrivs:\s1$' "$task/status" || return
  done
}
has_ended() { status ended | grep -q terminated; }

profile() { # profile MODE NAME OPTION…
  local mode=$1 name=$2
  shift 2
  config 1 "$client"
  rm -f "$state/status/local.status.json"
  begin "$@"
  claim "$name: the gateway reports ready" eventually is_ready
  connect "$(status public_key)"
  claim "$name: 5 MB arrive unchanged" eventually same_bytes
  claim "$name: the gateway answers ping" inside client ping -c 1 -W 3 10.8.0.1
  claim "$name: instance metadata stays closed" absent fetch 169.254.169.254
  config 2 "$client" "$(peer other 3 "$(wg genkey | wg pubkey)")"
  claim "$name: a new peer is in force at once" eventually has_applied 2
  claim "$name: and does not disturb the first" same_bytes
  claim "$name: it is mode $mode" test "$(status mode)" = "$mode"
  [ "$mode" = kernel ] || claim "$name: the gateway is nobody, and may do nothing" is_nobody
  inside client wg-quick down "$work/$link.conf" >/dev/null 2>&1
  finish "$name"
  claim "$name: its last status says so" has_ended
  claim "$name: with what the peer has used" has_counted
}

# The state is nobody's, as on Azure, where there is none: the gateway becomes its owner.
chown -R 65534:65534 "$work"
profile raw "docker's default capabilities"
profile socket "docker's default capabilities, sockets" --env GATEWAY_MODE=socket
profile socket "no capability at all" --cap-drop all --user 65534:65534 --security-opt no-new-privileges

# With NET_ADMIN and a TUN device: kernel mode, with wireguard-go behind wg-quick. In a container
# /proc/sys is read-only: whoever runs it sets these (docker: --sysctl).
inside gateway sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
chown -R 0:0 "$work"
profile kernel "NET_ADMIN and a TUN device" --cap-add NET_ADMIN --device /dev/net/tun --env GATEWAY_MODE=kernel

# By hand, without what kernel mode needs: it says so.
says() { podman run --rm --network=none "$@" "$image" 2>&1; }
claim "by hand: without NET_ADMIN it says what is missing" grep -q "LEASE_ID is not set.*NET_ADMIN" <(says)
claim "by hand: and by name, too" grep -q "NET_ADMIN" <(says --env GATEWAY_MODE=kernel)

# The same by hand, without a handler and a lease.
printf '[Peer]\nPublicKey = %s\nAllowedIPs = 10.8.0.2/32\n' "$(wg pubkey <<<"$private")" >"$work/peers"
begin --env LEASE_ID= --env GATEWAY_MODE=kernel --env PEERS_FILE=/test/peers --env SERVER_KEY_FILE=/test/kernel.key \
  --cap-add NET_ADMIN --device /dev/net/tun
claim "by hand: the interface is up" eventually inside gateway ip link show wg0
connect "$(wg pubkey <"$work/kernel.key")"
claim "by hand: 5 MB arrive unchanged" eventually same_bytes
claim "by hand: instance metadata stays closed" absent fetch 169.254.169.254
finish "by hand"
no_rules() { ! inside gateway iptables-save | grep -e POPUP -e wg0; }
claim "by hand: no rule stays" no_rules
claim "by hand: no interface stays" absent inside gateway ip link show wg0

[ "$failures" -eq 0 ] || {
  echo "$failures claims failed"
  exit 1
}
echo "all claims hold"
