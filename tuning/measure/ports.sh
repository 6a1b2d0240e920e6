#!/usr/bin/env bash
# net.ipv4.ip_local_port_range, tcp_tw_reuse and TIME_WAIT: where closed connections stay, and how many ports relaying takes.
. "$(dirname "$0")/lib.sh"
namespace
waits() { inside ss -Htan state time-wait "$1" | wc -l; }
inbound() {
    set_here "net.ipv4.tcp_tw_reuse=$1"
    set_here "net.ipv4.ip_local_port_range=40000 41999"
    configure
    start
    # One address, 2000 ports, 6000 connections one after the other.
    load --connections 50 --messages 6000 --per-connection 1 --sources 127.0.0.2
    echo "accepted=$(figure messages) failed_connects=$(figure connect_failures) a_second=$(figure messages_per_second)" \
        "time_wait_of_edge=$(waits 'sport = :2525') time_wait_of_client=$(waits 'dport = :2525')"
    stop
}
outbound() {
    hop_port
    set_here "net.ipv4.ip_local_port_range=$1"
    ip netns exec "$NS" "$LOADGEN" sink 127.0.0.1:$HOP > "$WORK/sink" 2>&1 &
    SINK=$!
    sleep 0.3
    configure smtp://127.0.0.1:$HOP
    start
    load --connections 100 --messages 20000 --sources 127.0.0.2
    echo "accepted=$(figure messages) a_second=$(figure messages_per_second)" \
        "connections_to_hop=$(inside ss -Htan "dport = :$HOP" | wc -l) deferred=$(grep -c 'status=deferred' "$WORK/log" || true)"
    stop
}
in_reuse_off() { inbound 0; }
in_reuse_on() { inbound 1; }
out_100_ports() { outbound "40000 40099"; }
out_28000_ports() { outbound "32768 60999"; }
turns in_reuse_off in_reuse_on
turns out_100_ports out_28000_ports
