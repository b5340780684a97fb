#!/usr/bin/env bash
# generate-config.sh FILE: writes the interface's configuration for wg-quick, readable by its owner
# only. A private key is made if there is none; an existing one is never replaced.
#
#   SERVER_KEY_FILE   the private key (/etc/wireguard/private.key)
#   SERVER_PORT       the UDP port (51820)
#   SERVER_NETWORK    the tunnel's network; the interface gets its first address (10.8.0.0/24)
#   SERVER_ADDRESSES  the interface's addresses, instead of that one
#   SERVER_MTU        1420
#   PEERS_FILE        a file of [Peer] sections, if there are peers
set -euo pipefail
umask 077

file=${1:?usage: generate-config.sh FILE}
key_file=${SERVER_KEY_FILE:-/etc/wireguard/private.key}

# first_address NETWORK: 10.8.0.0/24 becomes 10.8.0.1/24.
first_address() {
  local address=${1%/*} prefix=${1#*/} a b c d number
  IFS=. read -r a b c d <<<"$address"
  number=$(((a << 24 | b << 16 | c << 8 | d) >> (32 - prefix) << (32 - prefix) | 1))
  printf '%d.%d.%d.%d/%d\n' $((number >> 24 & 255)) $((number >> 16 & 255)) $((number >> 8 & 255)) $((number & 255)) "$prefix"
}

if ! [ -s "$key_file" ]; then
  mkdir -p "$(dirname "$key_file")"
  made=$(mktemp "$key_file.XXXXXX")
  wg genkey >"$made"
  # A link fails where the name is taken: of two that start together, one makes the key.
  ln "$made" "$key_file" 2>/dev/null || [ -s "$key_file" ] || mv -n "$made" "$key_file"
  rm -f "$made"
fi
chmod 600 "$key_file" 2>/dev/null || true # an Azure Files share has no modes

new=$(mktemp "$file.XXXXXX")
{
  echo '[Interface]'
  echo "PrivateKey = $(cat "$key_file")"
  echo "Address = ${SERVER_ADDRESSES:-$(first_address "${SERVER_NETWORK:-10.8.0.0/24}")}"
  echo "ListenPort = ${SERVER_PORT:-51820}"
  echo "MTU = ${SERVER_MTU:-1420}"
  # The addresses cover every peer: no route is needed for each.
  echo 'Table = off'
  if [ -n "${PEERS_FILE:-}" ] && [ -s "$PEERS_FILE" ]; then
    echo
    cat "$PEERS_FILE"
  fi
} >"$new"
mv "$new" "$file"
