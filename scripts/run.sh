#!/usr/bin/env bash
# Builds a release and starts the local default: the handler on 127.0.0.1:7071, which starts the
# gateway when it is asked to. Nothing here needs root, unless a compiler must be installed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_rust
need cc=build-essential curl=curl
cargo build --release

port=${FUNCTIONS_CUSTOMHANDLER_PORT:-7071}
cat >&2 <<TEXT

The handler starts now on http://127.0.0.1:$port; Ctrl-C ends it and its VPN. In another shell:

  curl -f -X POST -H 'Accept: text/plain' localhost:$port/api/start-vpn -o popup.conf
  make try

The first starts the VPN and stores your configuration. The second brings it up with a real
WireGuard client in a network namespace of its own: on the machine that is itself the exit, a full
tunnel would loop. On any other machine: wg-quick up ./popup.conf

TEXT
exec target/release/popup-vpn
