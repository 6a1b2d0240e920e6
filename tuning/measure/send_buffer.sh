#!/usr/bin/env bash
# net.ipv4.tcp_wmem and tcp_notsent_lowat: relaying messages of 2 MB to a next hop 50 ms away (100 ms there and back).
. "$(dirname "$0")/lib.sh"
namespace
slow_line_to_far
run() {
    hop_port
    set_here "net.ipv4.tcp_wmem=4096 16384 $1"
    set_here "net.ipv4.tcp_notsent_lowat=$2"
    ip netns exec "$NS-far" "$LOADGEN" sink 10.66.0.2:$HOP --messages 24 > "$WORK/sink" 2>&1 &
    SINK=$!
    sleep 0.3
    configure smtp://10.66.0.2:$HOP
    start
    (for _ in $(seq 200); do inside awk '/^TCP:/ { print $11 }' /proc/net/sockstat; sleep 0.02; done > "$WORK/memory") &
    local watch=$!
    load --connections 4 --size 2000000 --messages 24
    kill "$watch" 2>/dev/null || true
    wait "$watch" 2>/dev/null || true
    echo "MB_a_second=$(python3 -c "print(2 * $(figure messages_per_second))")" "final_reply_p50_ms=$(figure final_reply_us/p50)" \
        "socket_memory_pages_max=$(sort -n "$WORK/memory" | tail -1)" "messages=$(figure messages)"
    stop
}
max_256KiB() { run 262144 4294967295; }
max_4MiB() { run 4194304 4294967295; }
max_4MiB_lowat_128KiB() { run 4194304 131072; }
turns max_4MiB max_256KiB max_4MiB_lowat_128KiB
