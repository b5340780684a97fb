#!/usr/bin/env bash
# with-azurite.sh COMMAND…: runs it while Azurite, the emulator of Blob Storage, listens on a free
# loopback port that AZURITE_CONNECTION_STRING names.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

azurite=$tools/azurite/node_modules/.bin/azurite-blob
[ -x "$azurite" ] || die "Azurite is missing; type: scripts/install-stand-ins.sh"
work=$(mktemp -d)
"$azurite" --location "$work" --blobHost 127.0.0.1 --blobPort 0 --skipApiVersionCheck --disableTelemetry \
  >"$work/log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT

port=
for _ in $(seq 300); do
  port=$(sed -n 's|.*listens on http://127.0.0.1:\([0-9]*\).*|\1|p' "$work/log")
  [ -n "$port" ] && break
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
[ -n "$port" ] || die "Azurite did not start:
$(cat "$work/log")"

# The emulator's account and key are the same everywhere, and published with it.
key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
export AZURITE_CONNECTION_STRING="DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=$key;BlobEndpoint=http://127.0.0.1:$port/devstoreaccount1;"
"$@"
