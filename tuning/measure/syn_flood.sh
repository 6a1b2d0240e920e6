#!/usr/bin/env bash
# net.ipv4.tcp_syncookies and tcp_max_syn_backlog: honest clients at 200 a second while SYNs of addresses that never answer
# come over a veth, some 5000 a second.
. "$(dirname "$0")/lib.sh"
namespace
veth_to -flood 16
# Strangers come from 10.77.0.0/16; nobody there answers a SYN-ACK.
ip -n "$NS" route add 10.77.0.0/16 via 10.66.0.2
ADDRESS=0.0.0.0
run() {
    # Without cookies the kernel lets addresses through that it remembers from an earlier round.
    inside ip tcp_metrics flush
    set_here "net.ipv4.tcp_syncookies=$1"
    set_here "net.ipv4.tcp_max_syn_backlog=$2"
    configure
    start
    local cookies=$(counter TcpExtSyncookiesSent) listen=$(counter TcpExtListenDrops)
    ip netns exec "$NS-flood" taskset -c 1 python3 "$HERE/syn_flood.py" 10.66.0.1 2525 5000 7 &
    local flood=$!
    sleep 2
    load --connections 200 --rate 200 --per-connection 1 --duration 4s --warm-up 0s --sources 127.0.0.2-127.0.0.20 --timeout 20s
    wait "$flood"
    echo "accepted=$(figure messages) $(slowest) failed_connects=$(figure connect_failures)" \
        "cookies=$(($(counter TcpExtSyncookiesSent) - cookies))" \
        "listen_drops=$(($(counter TcpExtListenDrops) - listen))"
    stop
}
cookies_off_backlog_128() { run 0 128; }
cookies_off_backlog_4096() { run 0 4096; }
cookies_on_backlog_128() { run 1 128; }
cookies_on_backlog_4096() { run 1 4096; }
turns cookies_off_backlog_128 cookies_off_backlog_4096 cookies_on_backlog_128 cookies_on_backlog_4096
