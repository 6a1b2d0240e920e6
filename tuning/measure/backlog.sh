#!/usr/bin/env bash
# net.core.somaxconn, and tcp_abort_on_overflow where it is too small: 2000 clients come while the edge stands still for 300 ms (SIGSTOP), as under a burst on a busy host.
. "$(dirname "$0")/lib.sh"
namespace
# Until the first client waits to be accepted.
waiting() {
    for _ in $(seq 500); do
        inside ss -Hltn 'sport = :2525' | awk '$2 > 0 { found = 1 } END { exit !found }' && return
        sleep 0.005
    done
}
run() {
    set_here "net.core.somaxconn=$1"
    set_here "net.ipv4.tcp_abort_on_overflow=${2:-0}"
    configure
    start
    local before=$(counter TcpExtListenOverflows)
    kill -STOP "$EDGE"
    (waiting; sleep 0.3; kill -CONT "$EDGE") &
    LOAD_THREADS=16 load --connections 2000 --messages 2000 --per-connection 1 --timeout 10s --sources 127.0.0.2-127.0.0.20
    echo "connect_p50_ms=$(ms stages/connect/p50) connect_max_ms=$(ms stages/connect/max)" \
        "greeting_p50_ms=$(ms stages/greeting/p50) greeting_max_ms=$(ms stages/greeting/max) $(slowest)" \
        "overflows=$(($(counter TcpExtListenOverflows) - before)) failures=$(figure failures_in_whole_run)"
    stop
}
somaxconn_128() { run 128; }
somaxconn_4096() { run 4096; }
somaxconn_128_abort() { run 128 1; }
turns somaxconn_128 somaxconn_4096 somaxconn_128_abort
