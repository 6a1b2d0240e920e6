#!/usr/bin/env bash
# Transparent huge pages: resident memory with 5000 idle clients, on two shards.
. "$(dirname "$0")/lib.sh"
namespace
run() {
    set_machine /sys/kernel/mm/transparent_hugepage/enabled "$1"
    configure discard: 30s 2
    CORES=0-1 BEFORE="env $2" start
    local fresh=$(awk '/VmRSS/ { print $2 }' "/proc/$EDGE/status")
    load --connections 50 --messages 20000 --pid "$EDGE" --sources 127.0.0.2-127.0.0.20
    local speed="a_second=$(figure messages_per_second) cpu_us=$(figure server_cpu_us_per_message)"
    LOAD_THREADS=40 load --idle 5000 --duration 2s --sources 127.0.0.2-127.0.0.20 &
    local clients=$!
    sleep 2.5
    echo "fresh_KiB=$fresh idle_5000_KiB=$(awk '/VmRSS/ { print $2 }' "/proc/$EDGE/status")" \
        "huge_KiB=$(awk '/AnonHugePages/ { print $2 }' "/proc/$EDGE/smaps_rollup")" $speed
    wait "$clients" || true
    stop
}
never() { run never _=; }
madvise() { run madvise _=; }
always() { run always _=; }
always_not_allowed() { run always MIMALLOC_ALLOW_THP=0; }
turns never madvise always always_not_allowed
