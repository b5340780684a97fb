#!/usr/bin/env bash
# package.sh PROGRAM: what scripts/package.sh puts into the zip for Azure Functions.
set -euo pipefail

program=$(realpath "${1:?usage: package.sh PROGRAM}")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make_package() { POPUP_VPN=$program PACKAGE_DIR=$work/$1 scripts/package.sh; }
make_package one
sleep 2 # the dates in a zip count two seconds
make_package two
cmp "$work/one/popup-vpn.zip" "$work/two/popup-vpn.zip" || {
  echo "FAIL  the same files give another zip" >&2
  exit 1
}
python3 - "$work/one/popup-vpn.zip" <<'PYTHON'
import glob, stat, sys, zipfile

package = zipfile.ZipFile(sys.argv[1])
wanted = {"popup-vpn", "host.json", *glob.glob("*/function.json")}
assert set(package.namelist()) == wanted, package.namelist()
for entry in package.infolist():
    mode = entry.external_attr >> 16
    executable = bool(mode & stat.S_IXOTH)
    assert executable == (entry.filename == "popup-vpn"), (entry.filename, oct(mode))
    assert stat.S_ISREG(mode) and mode & 0o022 == 0, (entry.filename, oct(mode))
PYTHON
echo "all claims hold"
