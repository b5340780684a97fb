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

# starts: eight that come together.
starts() {
  rm -rf "$work"/start*.conf
  local number started=()
  for number in 1 2 3 4 5 6 7 8; do
    "$script" "$work/start$number.conf" &
    started+=($!)
  done
  wait "${started[@]}"
}
keys() { sed -n 's/^PrivateKey = //p' "$work"/start*.conf | sort -u | wc -l; }
all() { [ "$(grep -l '^PrivateKey = .\{44\}$' "$work"/start*.conf | wc -l)" -eq 8 ]; }
leftovers() { find "$work" -name '*.key.*' -o -name '*.conf.*'; }
one_key() { # one_key WHERE
  starts
  claim "$1: starts that come together end with one key" test "$(keys)" -eq 1
  claim "$1: which all of them have" all
  claim "$1: which is for its owner only" test "$(stat -c %a "$SERVER_KEY_FILE")" = 600
  claim "$1: and leave no half-made file" test -z "$(leftovers)"
}
one_key "a directory"
: >"$SERVER_KEY_FILE"
one_key "an empty file, left by a crash"

# An Azure Files share has no hard links, and is slow.
mkdir "$work/bin"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/ln"
printf '#!/bin/sh\nsleep 0.1\nexec %s "$@"\n' "$(command -v mv)" >"$work/bin/mv"
chmod +x "$work/bin/ln" "$work/bin/mv"
usual=$PATH
PATH=$work/bin:$PATH
rm -f "$SERVER_KEY_FILE"
one_key "a share without links"
: >"$SERVER_KEY_FILE"
one_key "a share without links, and an empty file"

# The key is on the disk before it has its name.
cat >"$work/bin/sync" <<TEXT
#!/bin/sh
[ -e "$SERVER_KEY_FILE" ] || [ "\$(wc -c <"\$1")" -ne 45 ] || echo "\$1" >>"$work/synced"
TEXT
chmod +x "$work/bin/sync"
rm "$work/bin/ln" "$work/bin/mv" "$SERVER_KEY_FILE"
"$script" "$work/wg0.conf"
PATH=$usual
claim "the key is on the disk before it has its name" grep -q '\.key\.' "$work/synced"
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
