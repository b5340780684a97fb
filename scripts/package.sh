#!/usr/bin/env bash
# Makes the package for Azure Functions: target/package/popup-vpn.zip, and the same as a directory,
# target/package/handler, which `azd` zips itself. The program is static and has its exec bit; the
# same sources give the same zip.
#
#   POPUP_VPN    a popup-vpn that is there already, for tests; built for musl when unset
#   PACKAGE_DIR  where to, instead of target/package
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(uname -sm)" = "Linux x86_64" ] || die "the package is built on Linux x86_64; elsewhere use a virtual machine, a dev container or GitHub Actions"
need zip=zip
program=${POPUP_VPN:-}
if [ -z "$program" ]; then
  need_rust
  need cc=build-essential musl-gcc=musl-tools
  target=x86_64-unknown-linux-musl
  if have rustup; then
    rustup target add "$target" >&2
  fi
  step "popup-vpn, static"
  cargo build --release --locked --package popup-vpn --bin popup-vpn --target "$target"
  program=target/$target/release/popup-vpn
fi

package=${PACKAGE_DIR:-$root/target/package}
handler=$package/handler
rm -rf "$package"
mkdir -p "$handler"
install -m 755 "$program" "$handler/popup-vpn"
install -m 644 host.json "$handler/host.json"
for function in */function.json; do
  install -D -m 644 "$function" "$handler/$function"
done
find "$package" -exec touch --date=@"${SOURCE_DATE_EPOCH:-1577836800}" {} +
(cd "$handler" && find . -type f | LC_ALL=C sort | TZ=UTC zip -q -X "$package/popup-vpn.zip" -@)
say "made $package/popup-vpn.zip ($(wc -c <"$package/popup-vpn.zip") bytes)"
