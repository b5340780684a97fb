#!/usr/bin/env bash
# Installs, once and into target/tools, what the tests of the stand-ins for Azure need: Azurite
# (npm) and Azure's SDK for Python (PyPI), in the versions that tests/stand_ins pins.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need npm=npm node=nodejs python3=python3
stand_ins=$root/tests/stand_ins

azurite=$tools/azurite
if ! cmp -s "$stand_ins/package-lock.json" "$azurite/installed"; then
  say "installing Azurite"
  mkdir -p "$azurite"
  cp "$stand_ins/package.json" "$stand_ins/package-lock.json" "$azurite/"
  (cd "$azurite" && npm ci --silent --no-audit --no-fund --omit=dev >&2)
  cp "$stand_ins/package-lock.json" "$azurite/installed"
fi

sdk=$tools/azure-sdk
if ! cmp -s "$stand_ins/python/requirements.txt" "$sdk/installed"; then
  say "installing Azure's SDK for Python"
  # Debian keeps a part of venv in a package of its own.
  python3 -c 'import ensurepip' 2>/dev/null || need "ensurepip=python3-venv"
  python3 -m venv "$sdk"
  "$sdk/bin/pip" install --quiet --disable-pip-version-check -r "$stand_ins/python/requirements.txt" >&2
  cp "$stand_ins/python/requirements.txt" "$sdk/installed"
fi
