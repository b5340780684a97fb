#!/usr/bin/env bash
# Runs the whole product against Azure's stand-ins, on this machine and in namespaces of its own:
# the simulation of Container Instances, Azurite, a Functions host and, once it is asked for, the
# gateway. Needs root for the namespaces; nothing is left behind.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

case ${1:-} in
--inside) work=$2 ;;
--as-root)
  # unshare waits through SIGINT and SIGTERM; with it ends everything in there.
  work=$(mktemp -d)
  unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private -- \
    bash "$root/scripts/run-azure-sim.sh" --inside "$work" &
  inside=$!
  trap 'kill -KILL "$inside" 2>/dev/null || true; wait "$inside" 2>/dev/null || true; rm -rf "$work"' EXIT
  trap 'exit 0' INT TERM HUP
  outcome=0
  wait "$inside" || outcome=$?
  exit "$outcome"
  ;;
*)
  need_rust
  need cc=build-essential ip=iproute2 unshare=util-linux setpriv=util-linux curl=curl
  scripts/install-stand-ins.sh
  cargo build -p popup-vpn -p popup-gateway -p popup-stand-ins --bins
  [ "$(id -u)" -ne 0 ] || exec "$root/scripts/run-azure-sim.sh" --as-root
  as_root "$root/scripts/run-azure-sim.sh" --as-root
  exit
  ;;
esac

bin=$root/target/debug
ip link set lo up
ip address add 192.0.2.1/32 dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward

TMPDIR=$work "$bin/azure-sim" --directory "$work" --listen 192.0.2.1 --runner process --scale 0.2 \
  --program "$bin/popup-gateway" --azurite "$tools" >"$work/azure-sim.log" 2>&1 &
sim=$!
for _ in $(seq 600); do
  [ -e "$work/ready.json" ] && break
  kill -0 "$sim" 2>/dev/null || break
  sleep 0.1
done
[ -e "$work/ready.json" ] || die "the simulation did not start:
$(cat "$work/azure-sim.log")"

package=$work/package
mkdir "$package"
for file in "$root"/host.json "$root"/*/function.json; do
  case $file in
  */function.json) ln -s "$(dirname "$file")" "$package/" ;;
  *) ln -s "$file" "$package/" ;;
  esac
done
ln -s "$bin/popup-vpn" "$package/popup-vpn"

cat >&2 <<TEXT

Azure's stand-ins run in namespaces of their own; Ctrl-C ends them. In another shell, as root:

  pid=\$(pgrep --full 'azure-sim --directory $work ')
  in_azure() { nsenter --target "\$pid" --net --mount "\$@"; }
  in_azure curl -X POST -H 'x-functions-key: host-key' 127.0.0.1:7071/api/start-vpn
  in_azure curl -H 'x-functions-key: host-key' 127.0.0.1:7071/api/vpn-status

A fault for the next request that fits (tests/stand_ins/src/arm/fault.rs has them all):

  in_azure curl -X POST -H 'content-type: application/json' \\
    -d '{"kind": "respond", "status": 429, "retryAfterS": 5, "method": "PUT"}' \\
    http://$(sed -n 's/.*"plain":"\([^"]*\)".*/\1/p' "$work/ready.json")/_simulation/faults

TEXT
"$bin/functions-host-double" --package "$package" --settings-from "$work/ready.json" \
  --listen 127.0.0.1:7071 --timers
