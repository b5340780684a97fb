#!/usr/bin/env bash
# tools.sh [boringtun-cli|cargo-nextest]…: builds test tools that no distribution has, once, into
# target/tools. Without arguments, all of them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_rust
need cc=build-essential
if [ $# -eq 0 ]; then
  set -- boringtun-cli cargo-nextest
fi
for tool in "$@"; do
  case $tool in
  boringtun-cli) need_crate boringtun-cli boringtun-cli 0.7.1 ;;
  cargo-nextest) need_crate cargo-nextest cargo-nextest 0.9.143 ;;
  *) die "$tool is none of this project's tools" ;;
  esac
done
