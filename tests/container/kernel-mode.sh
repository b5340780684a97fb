#!/usr/bin/env bash
# The image's scripts in kernel mode, with a userspace WireGuard behind wg-quick: a client reaches
# the internet, the closed destinations stay closed, peers come and go, SIGTERM leaves nothing.
# Everything happens in network namespaces of its own and ends with this script.
#
#   client 198.51.100.2 ─┐
#   other  198.51.100.3 ─┴─ 198.51.100.1 [gateway] 203.0.113.1 ── 203.0.113.10 [internet]
set -euo pipefail

scripts=$(cd "$(dirname "$0")/../../container/scripts" && pwd)
if [ "${1:-}" != inside ]; then
  [ "$(id -u)" -eq 0 ] || {
    echo "this test makes network namespaces and so needs root: run it with sudo" >&2
    exit 1
  }
  for tool in ip unshare wg wg-quick wireguard-go iptables ip6tables conntrack curl ping python3; do
    command -v "$tool" >/dev/null || {
      echo "$tool is missing: apt-get install iproute2 util-linux wireguard-tools wireguard-go iptables conntrack curl iputils-ping python3" >&2
      exit 1
    }
  done
  # unshare itself waits through SIGINT and SIGTERM, and process 1 in there hears neither. SIGKILL
  # takes everything in there with it, however this script ends.
  work=$(mktemp -d)
  unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private -- "$0" inside "$work" &
  inside=$!
  trap 'kill -KILL "$inside" 2>/dev/null || true; rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  outcome=0
  wait "$inside" || outcome=$?
  exit "$outcome"
fi

umask 077
work=$2
mkdir -p /run/netns /run/wireguard
mount -t tmpfs tmpfs /run/netns
mount -t tmpfs tmpfs /run/wireguard

failures=0
claim() { # claim TEXT COMMAND…
  local text=$1
  shift
  if "$@" >"$work/claim.log" 2>&1; then
    echo "ok    $text"
  else
    echo "FAIL  $text"
    sed 's/^/      /' "$work/claim.log"
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
fails_at_once() { # an answer that says no, not silence
  local begun=$SECONDS
  ! "$@" && [ $((SECONDS - begun)) -le 2 ]
}
absent() { ! "$@"; }
fetch() { ip netns exec "$1" curl --silent --show-error --fail --max-time 5 "http://$2/"; }

# The boxes and the cables.
closed=(10.1.2.3 172.16.9.9 192.168.7.7 100.64.1.1 192.0.0.8 169.254.169.254 168.63.129.16)
ip link set lo up
ip link add clients type bridge
ip address add 198.51.100.1/24 dev clients
ip link set clients up
box() { # box NAME ADDRESS
  ip netns add "$1"
  ip link add "to-$1" type veth peer name wan netns "$1"
  ip netns exec "$1" ip link set lo up
  ip netns exec "$1" ip address add "$2" dev wan
  ip netns exec "$1" ip link set wan up
  ip link set "to-$1" up
}
box internet 203.0.113.10/24
ip address add 203.0.113.1/24 dev to-internet
for name in client other; do
  box "$name" "198.51.100.$([ "$name" = client ] && echo 2 || echo 3)/24"
  ip link set "to-$name" master clients
done
# What is closed exists, and answers: only the policy keeps clients from it.
for address in "${closed[@]}"; do
  ip netns exec internet ip address add "$address/32" dev lo
  ip route add "$address" via 203.0.113.10
done
cat >"$work/serve.py" <<'PYTHON'
"""Answers every GET with the caller's address; /slow goes on for a minute."""
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode() + b"\n")
        for _ in range(600 if self.path == "/slow" else 0):
            try:
                self.wfile.write(b"x" * 1000)
            except OSError:
                return
            time.sleep(0.1)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
PYTHON
ip netns exec internet python3 "$work/serve.py" 80 &
python3 "$work/serve.py" 8080 &
eventually fetch internet 203.0.113.10
eventually curl --silent --fail http://198.51.100.1:8080/

# The gateway: the image's own entrypoint.
export SERVER_KEY_FILE=$work/etc/private.key PEERS_FILE=$work/peers RUN_DIR=$work/run
export GATEWAY_MODE=kernel SERVER_PORTS=51820,443
peer() { # peer BOX ADDRESS ENDPOINT-PORT: writes its client file and prints its [Peer] section
  wg genkey >"$work/$1.key"
  printf '[Peer]\nPublicKey = %s\nAllowedIPs = %s/32, fd00:8::%s/128\n' "$(wg pubkey <"$work/$1.key")" "$2" "${2##*.}"
  cat >"$work/$1.conf" <<CONF
[Interface]
PrivateKey = $(cat "$work/$1.key")
Address = $2/32, fd00:8::${2##*.}/128
MTU = 1420
[Peer]
PublicKey = SERVER
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 198.51.100.1:$3
PersistentKeepalive = 25
CONF
}
export SERVER_ADDRESSES="10.8.0.1/24, fd00:8::1/64"
peer client 10.8.0.2 51820 >"$work/peers.client"
cp "$work/peers.client" "$PEERS_FILE"
start() {
  "$scripts/entrypoint.sh" 2>"$work/gateway.log" &
  gateway=$!
  eventually grep -q 'up, public key' "$work/gateway.log" || {
    cat "$work/gateway.log"
    exit 1
  }
}
connect() {
  sed -i "s|SERVER|$(wg show wg0 public-key)|" "$work/$1.conf"
  ip netns exec "$1" wg-quick up "$work/$1.conf" >"$work/$1.log" 2>&1 || cat "$work/$1.log"
}
start
connect client

mode_of() { [ "$(stat -c %a "$1")" = 600 ]; }
claim "the key is made, for its owner only" mode_of "$SERVER_KEY_FILE"
claim "the configuration is for its owner only" mode_of "$RUN_DIR/wg0.conf"
claim "a client reaches the internet" eventually fetch client 203.0.113.10
from_gateway() { [ "$(fetch client 203.0.113.10)" = 203.0.113.1 ]; }
claim "from the gateway's address" from_gateway
claim "the gateway's tunnel address answers ping" ip netns exec client ping -c 1 -W 2 10.8.0.1
for address in "${closed[@]}"; do
  claim "$address is refused, though it answers the gateway" eventually curl --silent --fail --max-time 5 --output /dev/null "http://$address/"
  claim "$address is refused to clients, at once" fails_at_once fetch client "$address"
done
for address in 10.8.0.1 203.0.113.1 127.0.0.1 0.0.0.0; do
  claim "the gateway's own services stay closed at $address" absent fetch client "$address:8080"
done
claim "broadcast and multicast are refused" absent fetch client 224.0.0.1
claim "IPv6 is answered at once" fails_at_once ip netns exec client curl -6 --silent --max-time 5 "http://[2001:db8::1]/"

# A second peer comes while the first is busy, on another port, and goes.
ip netns exec client curl --silent --no-buffer --max-time 60 --output "$work/slow" http://203.0.113.10/slow &
busy=$!
peer other 10.8.0.3 443 >>"$PEERS_FILE"
"$scripts/kernel-path.sh" sync
connect other
claim "a peer added live works, through the second port" eventually fetch other 203.0.113.10
claim "peers cannot reach each other" fails_at_once fetch client 10.8.0.3
ip netns exec other curl --silent --no-buffer --max-time 60 --output "$work/slow.other" http://203.0.113.10/slow &
other_busy=$!
eventually test -s "$work/slow.other"
cp "$work/peers.client" "$PEERS_FILE"
REVOKED=10.8.0.3 "$scripts/kernel-path.sh" sync
one_peer() { [ "$(wg show wg0 peers | wc -l)" -eq 1 ]; }
claim "a revoked peer is gone" one_peer
no_flows() { [ -z "$(conntrack -L --orig-src 10.8.0.3 2>/dev/null)" ]; }
claim "and its flows with it" no_flows
claim "it cannot come back" absent fetch other 203.0.113.10
size=$(stat -c %s "$work/slow")
grows() { [ "$(stat -c %s "$work/slow")" -gt "$size" ]; }
claim "the first peer was not disturbed" eventually grows
kill "$busy" "$other_busy" 2>/dev/null || true

# SIGTERM: within 2 s, and nothing stays but the key.
begun=$(date +%s%N)
kill -TERM "$gateway"
ended=0
wait "$gateway" || ended=$?
took=$((($(date +%s%N) - begun) / 1000000))
claim "SIGTERM ends it with 0" test "$ended" -eq 0
claim "within 2 s ($took ms)" test "$took" -lt 2000
claim "the interface is gone" absent ip link show wg0
no_rules() { ! iptables-save | grep POPUP && ! ip6tables-save | grep POPUP && ! iptables-save | grep wg0; }
claim "so are the rules" no_rules
claim "so is the configuration" absent test -e "$RUN_DIR/wg0.conf"
claim "the key stays" test -s "$SERVER_KEY_FILE"

# The same key at the next start; an exception opens what it names and nothing of the platform's.
export EGRESS_ALLOW=10.1.0.0/16,fd00::/8,192.168.7.0/24
start
claim "the same file works after the next start" eventually fetch client 203.0.113.10
claim "an exception opens a private network" fetch client 10.1.2.3
claim "and not its neighbour" fails_at_once fetch client 172.16.9.9
claim "and never instance metadata" fails_at_once fetch client 169.254.169.254

# Killed, it leaves its interface and rules behind; the next one is not disturbed by them.
kill -KILL "$gateway"
wait "$gateway" 2>/dev/null || true
claim "a killed one leaves its interface" ip link show wg0
start
claim "and the next one starts all the same" eventually fetch client 203.0.113.10
one_hook() { [ "$(iptables-save | grep -c -- '-j POPUP-FORWARD')" -eq 1 ]; }
claim "with each rule once" one_hook
kill -TERM "$gateway"
wait "$gateway" || true

# The probe asks for what `up` will need, with programs that only write down what they are asked.
mkdir "$work/stubs"
for tool in ip iptables; do
  cat >"$work/stubs/$tool" <<STUB
#!/bin/sh
echo "$tool \$*" >>"$work/asked"
case "\$*" in *"\$REFUSED"*) exit 1 ;; esac
STUB
  chmod 700 "$work/stubs/$tool"
done
probe_without() { # probe_without WORDS: where what has these words is refused
  : >"$work/asked"
  REFUSED=$1 PATH=$work/stubs:$PATH "$scripts/kernel-path.sh" probe
}
claim "the probe is content where all can be had" probe_without "nothing at all"
for words in "link add" "192.0.2.1/32 dev" "2001:db8::1/128 dev" "--table nat" "--table mangle"; do
  claim "but not without: $words" absent probe_without "$words"
done
probe_leaves_nothing() { ! probe_without "192.0.2.1/32 dev" && grep -q '^ip link delete popup-probe' "$work/asked"; }
claim "and its interface goes in every case" probe_leaves_nothing

# Where IPv6 is disabled, as in many a container.
for name in all default; do echo 1 >"/proc/sys/net/ipv6/conf/$name/disable_ipv6"; done
claim "the probe needs no IPv6 where there is none" probe_without "2001:db8::1/128 dev"
start
claim "without IPv6 it works all the same" eventually fetch client 203.0.113.10
claim "the interface has its IPv4 address" grep -q '^Address = 10.8.0.1/24$' "$RUN_DIR/wg0.conf"
"$scripts/kernel-path.sh" sync
claim "changed peers make no difference" eventually fetch client 203.0.113.10
kill -TERM "$gateway"
wait "$gateway" || true
ip netns exec client wg-quick down "$work/client.conf" >/dev/null 2>&1 || true

[ "$failures" -eq 0 ] || {
  echo "$failures claims failed"
  exit 1
}
echo "all claims hold"
