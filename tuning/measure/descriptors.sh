#!/usr/bin/env bash
# LimitNOFILE: 3000 clients at once under limits of open files. Above the hard limit of the shell it wants CAP_SYS_RESOURCE.
. "$(dirname "$0")/lib.sh"
namespace
run() {
    configure
    BEFORE="prlimit --nofile=$1:$1" start
    LOAD_THREADS=24 load --connections 3000 --duration 3s --warm-up 0s --sources 127.0.0.2-127.0.0.20 &
    local clients=$!
    sleep 2.5
    echo "sessions=$(inside ss -Htn state established 'sport = :2525' | wc -l)" \
        "refused=$(grep -c 'limit=ConnectionCountExceeded' "$WORK/log" || true) accept_errors=$(grep -c 'cannot accept' "$WORK/log" || true)"
    wait "$clients"
    stop
}
files_1024() { run 1024; }
files_16384() { run 16384; }
turns files_1024 files_16384
