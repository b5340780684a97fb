#!/usr/bin/env bash
# What generate-config.sh writes. Needs only `wg`.
set -euo pipefail

script=$(cd "$(dirname "$0")/../../container/scripts" && pwd)/generate-config.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SERVER_KEY_FILE=$work/private.key
failures=0
claim() { # claim TEXT COMMAND…
  if "${@:2}" >/dev/null 2>&1; then echo "ok    $1"; else
    echo "FAIL  $1"
    failures=$((failures + 1))
  fi
}
line() { sed -n "s/^$1 = //p" "$work/wg0.conf"; }

for _ in 1 2 3 4 5 6 7 8; do
  "$script" "$work/start$_.conf" &
done
wait
keys() { sed -n 's/^PrivateKey = //p' "$work"/start*.conf | sort -u | wc -l; }
claim "starts that come together end with one key" test "$(keys)" -eq 1
claim "which is for its owner only" test "$(stat -c %a "$SERVER_KEY_FILE")" = 600
leftovers() { find "$work" -name '*.key.*' -o -name '*.conf.*'; }
claim "and leave no half-made file" test -z "$(leftovers)"
kept=$(cat "$SERVER_KEY_FILE")
"$script" "$work/wg0.conf"
claim "a key that is there is kept" test "$(line PrivateKey)" = "$kept"
claim "the configuration is for its owner only" test "$(stat -c %a "$work/wg0.conf")" = 600
claim "the defaults are the ones people know" test "$(line Address) $(line ListenPort) $(line MTU)" = "10.8.0.1/24 51820 1420"

while read -r network address; do
  SERVER_NETWORK=$network "$script" "$work/wg0.conf"
  claim "$network gives the interface $address" test "$(line Address)" = "$address"
done <<'TEXT'
10.8.0.128/25 10.8.0.129/25
172.16.5.9/16 172.16.0.1/16
192.168.255.252/30 192.168.255.253/30
100.64.0.0/20 100.64.0.1/20
TEXT

printf '[Peer]\nPublicKey = %s\nAllowedIPs = 10.8.0.2/32\n' "$(wg genkey | wg pubkey)" >"$work/peers"
PEERS_FILE=$work/peers "$script" "$work/wg0.conf"
claim "peers are taken over" grep -q '^AllowedIPs = 10.8.0.2/32$' "$work/wg0.conf"
claim "wg-quick accepts the file" wg-quick strip "$work/wg0.conf"

[ "$failures" -eq 0 ] || exit 1
echo "all claims hold"
