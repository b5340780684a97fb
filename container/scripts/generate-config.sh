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

# make_key: whole and on the disk before it has its name, and of several that are made at once
# only one ever gets it. A key is 44 characters; what is empty was left by a crash.
make_key() {
  local made lock=$key_file.lock
  made=$(mktemp "$key_file.XXXXXX")
  wg genkey >"$made"
  sync "$made" 2>/dev/null || sync
  # A link fails where the name is taken.
  if ln "$made" "$key_file" 2>/dev/null; then
    rm -f "$made"
    return
  fi
  # Or where there are no links, as on an Azure Files share. There a directory can be made only once.
  local tries=0
  until [ -s "$key_file" ]; do
    if mkdir "$lock" 2>/dev/null; then
      [ -s "$key_file" ] || mv -f "$made" "$key_file"
      rmdir "$lock"
    elif [ $((tries += 1)) -gt 100 ]; then
      rm -f "$made"
      echo "generate-config: no key comes, and $lock is there: if nothing else starts, remove it" >&2
      exit 1
    else
      sleep 0.1
    fi
  done
  rm -f "$made"
}

if ! [ -s "$key_file" ]; then
  mkdir -p "$(dirname "$key_file")"
  make_key
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
