#!/bin/sh
# The example provider of machines, which reach this host at one address. Those of the pool "shut" let nobody in from outside, as
# machines behind NAT.
here=${0%/behind}
request=$(cat)
printf '%s' "$request" | "$here/runc-machines" "$1" || exit
case $request in *'"op":"create"'* | *'"op":"start"'*) ;; *) exit 0 ;; esac
id=$(printf '%s' "$request" | jq -r .machine.id)
machine() { nsenter --net --target "$(cat "$SHOAL_PROVIDER_DIR/machines/$id/pid")" "$@"; }
link=$(machine ip -o link show eth0 | sed 's/.*@if\([0-9]*\):.*/\1/')
link=$(ip -o link | sed -n "s/^$link: \([^@:]*\)[@:].*/\1/p")
ip address add 198.51.100.1/32 dev "$link" 2>/dev/null
machine ip route replace 198.51.100.1 via "$(ip -o -4 address show dev "$link" | sed -n 's/.*inet \(198\.1[89]\.[0-9.]*\).*/\1/p')"
[ "$(jq -r .pool "$SHOAL_PROVIDER_DIR/machines/$id/machine.json")" != shut ] ||
	machine nft 'table inet shut { chain in { type filter hook input priority 0; iifname "eth0" tcp flags & (syn | ack) == syn drop; }; }'
