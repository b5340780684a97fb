#!/usr/bin/env bash
# The kernel data path: WireGuard by wg-quick, forwarding and address translation by the kernel,
# and the same egress policy as the gateway's own (crates/gateway-core/src/policy.rs).
#
#   kernel-path.sh probe   succeeds when all of it can be had here, with the kernel's WireGuard
#   kernel-path.sh up      brings the interface up; generate-config.sh's variables say how
#   kernel-path.sh sync    takes over changed peers and disturbs no other; REVOKED lists addresses
#                          whose flows end now
#   kernel-path.sh down    takes everything away again
#
# Further variables: SERVER_INTERFACE (wg0), SERVER_PORTS (all ports, the first is SERVER_PORT),
# EGRESS_ALLOW (networks, separated by commas), PEER_TO_PEER (true or false), RUN_DIR.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
interface=${SERVER_INTERFACE:-wg0}
network=${SERVER_NETWORK:-10.8.0.0/24}
exceptions=${EGRESS_ALLOW:-}
run=${RUN_DIR:-/run/popup-gateway}
config=$run/$interface.conf

# policy.rs: NEVER, multicast and broadcast, BY_DEFAULT.
never=(0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 168.63.129.16/32)
many=(224.0.0.0/4 255.255.255.255/32)
by_default=(10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 192.0.0.0/24 240.0.0.0/4)

say() { printf '%s\n' "kernel-path: $*" >&2; }
ipt() { iptables --wait 5 "$@"; }
ip6t() { ip6tables --wait 5 "$@"; }
refuse() { ipt --append "$1" "${@:2}" --jump REJECT --reject-with icmp-admin-prohibited; }

# set_sysctl NAME VALUE: also where /proc/sys is read-only and the value is there already.
set_sysctl() {
  local path=/proc/sys/${1//.//}
  [ "$(cat "$path" 2>/dev/null)" = "$2" ] || echo "$2" >"$path"
}

# has_ipv6: whether a new interface takes IPv6 addresses.
has_ipv6() { [ "$(cat /proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null)" = 0 ]; }

probe() {
  local works=true table
  ip link add popup-probe type wireguard || return 1
  # Nobody's addresses (RFC 5737, RFC 3849).
  ip address add 192.0.2.1/32 dev popup-probe || works=false
  ! has_ipv6 || ip address add 2001:db8::1/128 dev popup-probe || works=false
  ip link delete popup-probe
  for table in filter nat mangle; do
    ipt --table "$table" --list-rules >/dev/null || works=false
  done
  [ "$works" = true ] && set_sysctl net.ipv4.ip_forward 1
}

# configure: writes the interface's configuration. Where no interface takes IPv6 addresses, it gets
# none: peers' IPv6 goes nowhere in any case.
configure() {
  local address addresses=
  if [ -n "${SERVER_ADDRESSES:-}" ] && ! has_ipv6; then
    for address in ${SERVER_ADDRESSES//,/ }; do
      case $address in
      *:*) ;;
      *) addresses=${addresses:+$addresses, }$address ;;
      esac
    done
    export SERVER_ADDRESSES=$addresses
  fi
  "$here/generate-config.sh" "$config"
}

chains() {
  ipt --new-chain POPUP-FORWARD
  ipt --new-chain POPUP-INPUT
  ipt --table nat --new-chain POPUP-SOURCE
  ipt --table nat --new-chain POPUP-PORTS

  # To the gateway itself: ping of its tunnel address, and nothing else.
  ipt --append POPUP-INPUT --protocol icmp --icmp-type echo-request --destination "$network" --jump ACCEPT
  refuse POPUP-INPUT

  local net
  for net in "${never[@]}"; do refuse POPUP-FORWARD --destination "$net"; done
  for net in "${many[@]}"; do refuse POPUP-FORWARD --destination "$net"; done
  # To another peer, before the tunnel's own range is closed or opened with the others.
  if [ "${PEER_TO_PEER:-false}" = true ]; then
    ipt --append POPUP-FORWARD --out-interface "$interface" --jump ACCEPT
  else
    refuse POPUP-FORWARD --out-interface "$interface"
  fi
  for net in ${exceptions//,/ }; do
    case $net in
    *:*) ;; # IPv6 has no way out to except
    *) ipt --append POPUP-FORWARD --destination "$net" --jump ACCEPT ;;
    esac
  done
  for net in "${by_default[@]}"; do refuse POPUP-FORWARD --destination "$net"; done
  ipt --append POPUP-FORWARD --jump ACCEPT

  ipt --table nat --append POPUP-SOURCE --source "$network" ! --out-interface "$interface" --jump MASQUERADE
  local port ports=${SERVER_PORTS:-}
  for port in ${ports//,/ }; do
    [ "$port" = "${SERVER_PORT:-51820}" ] || ipt --table nat --append POPUP-PORTS \
      ! --in-interface "$interface" --protocol udp --dport "$port" --jump REDIRECT --to-ports "${SERVER_PORT:-51820}"
  done
}

# hooks VERB PROGRAM: what sends packets into the chains. The same list makes and removes it.
hooks() {
  "$2" "$1" INPUT --in-interface "$interface" --jump POPUP-INPUT
  "$2" "$1" FORWARD --in-interface "$interface" --jump POPUP-FORWARD
}
hooks4() {
  hooks "$1" ipt
  # Back to a client: only what answers it. Last in time means first in the chain.
  ipt "$1" FORWARD --out-interface "$interface" ! --in-interface "$interface" --jump DROP
  ipt "$1" FORWARD --out-interface "$interface" --match conntrack --ctstate ESTABLISHED,RELATED --jump ACCEPT
  ipt --table nat "$1" POSTROUTING --jump POPUP-SOURCE
  ipt --table nat "$1" PREROUTING --jump POPUP-PORTS
  # "Handshake but no internet": segments that fit into the tunnel, in both directions.
  ipt --table mangle "$1" FORWARD --out-interface "$interface" --protocol tcp --tcp-flags SYN,RST SYN --jump TCPMSS --clamp-mss-to-pmtu
  ipt --table mangle "$1" FORWARD --in-interface "$interface" --protocol tcp --tcp-flags SYN,RST SYN --jump TCPMSS --set-mss "$((${SERVER_MTU:-1420} - 40))"
}

# IPv6 ends here, with an answer, so that clients fall back to IPv4 at once.
six() {
  ip6t --new-chain POPUP-FORWARD
  ip6t --new-chain POPUP-INPUT
  ip6t --append POPUP-FORWARD --jump REJECT --reject-with icmp6-adm-prohibited
  ip6t --append POPUP-INPUT --protocol icmpv6 --icmpv6-type echo-request --jump ACCEPT
  ip6t --append POPUP-INPUT --jump REJECT --reject-with icmp6-adm-prohibited
  hooks --insert ip6t
  set_sysctl net.ipv6.conf.all.forwarding 1
}

up() {
  mkdir -p "$run"
  chmod 700 "$run"
  configure
  # What a gateway that was killed has left: its interface and its rules outlive it.
  ip link delete "$interface" 2>/dev/null || true
  remove_rules
  # The rules first: there is no moment at which the interface is up and the policy is not.
  chains
  hooks4 --insert
  six || say "no IPv6 filter here: clients wait for IPv6 until they give up"
  set_sysctl net.ipv4.ip_forward 1
  # A redirect to a client makes no sense, and uses up the allowance of answers that do.
  # Both are wishes: in a container /proc/sys may be read-only, and not every kernel has BBR.
  set_sysctl net.ipv4.conf.all.send_redirects 0 2>/dev/null || true
  set_sysctl net.ipv4.conf.default.send_redirects 0 2>/dev/null || true
  set_sysctl net.ipv4.tcp_congestion_control bbr 2>/dev/null || true
  wg-quick up "$config"
}

sync() {
  configure
  wg syncconf "$interface" <(wg-quick strip "$config")
  local address
  for address in ${REVOKED:-}; do
    conntrack --delete --orig-src "$address" >/dev/null 2>&1 || true # there may be none
  done
}

# Each line for itself: what is not there needs no removal.
remove_rules() {
  set +e
  hooks4 --delete
  hooks --delete ip6t
  local chain
  for chain in POPUP-FORWARD POPUP-INPUT; do
    ipt --flush "$chain"
    ipt --delete-chain "$chain"
    ip6t --flush "$chain"
    ip6t --delete-chain "$chain"
  done
  for chain in POPUP-SOURCE POPUP-PORTS; do
    ipt --table nat --flush "$chain"
    ipt --table nat --delete-chain "$chain"
  done
  set -e
} 2>/dev/null

down() {
  wg-quick down "$config" || true
  remove_rules
  rm -f "$config"
}

case ${1:-} in
probe | up | sync | down) "$1" ;;
*)
  say "usage: kernel-path.sh probe|up|sync|down"
  exit 64
  ;;
esac
