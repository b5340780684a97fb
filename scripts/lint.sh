#!/usr/bin/env bash
# What reads the code without running it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need_rust
need cc=build-essential

step "rustfmt"
cargo fmt --all --check
scripts/lint-files.sh
step "clippy"
cargo clippy --workspace --all-targets --locked --features popup-stand-ins/installed -- --deny warnings
if have cargo-deny; then
  step "licences and sources"
  cargo deny --offline check licenses bans sources
fi
