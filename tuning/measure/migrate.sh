#!/usr/bin/env bash
# net.ipv4.tcp_migrate_req: new clients all the time while the edge reloads (SIGHUP) ten times, and while it is restarted.
. "$(dirname "$0")/lib.sh"
namespace
run() {
    set_here "net.ipv4.tcp_migrate_req=$1"
    configure discard: 30s 2
    CORES=0-1 start
    local before=$(counter TcpExtTCPMigrateReqSuccess)
    (sleep 0.5; for _ in $(seq 10); do kill -HUP "$EDGE"; sleep 0.2; done) &
    load --connections 50 --rate 1000 --per-connection 1 --duration 3s --warm-up 0s --sources 127.0.0.2-127.0.0.20
    local reload=$(figure failures_in_whole_run)
    (sleep 0.5; kill -TERM "$EDGE") &
    load --connections 50 --rate 1000 --per-connection 1 --duration 1s --warm-up 0s --sources 127.0.0.2-127.0.0.20 --timeout 3s
    echo "failures_in_reload=$reload failures_in_stop=$(figure failures_in_whole_run) resets=$(counter TcpOutRsts)" \
        "migrated=$(($(counter TcpExtTCPMigrateReqSuccess) - before))"
    wait "$EDGE" || true
    EDGE=
}
off() { run 0; }
on() { run 1; }
turns off on
