#!/usr/bin/env bash
# net.ipv4.tcp_rmem: messages of 4 MB over a line with 100 ms there and back (delay.py: this kernel has no netem).
. "$(dirname "$0")/lib.sh"
namespace
slow_line_to_far
ADDRESS=0.0.0.0
run() {
    set_here "net.ipv4.tcp_rmem=4096 131072 $1"
    configure
    start
    ip netns exec "$NS-far" "$LOADGEN" 10.66.0.1:2525 --target-is-mine --core 1 --silent --json "$WORK/run.json" \
        --connections 1 --size 4000000 --messages 3 > "$WORK/run.txt" 2>&1 || true
    echo "MB_a_second=$(python3 -c "print(4 * $(figure messages_per_second))")" "messages=$(figure messages)"
    stop
}
max_128KiB() { run 131072; }
max_1MiB() { run 1048576; }
max_6MiB() { run 6291456; }
max_32MiB() { run 33554432; }
turns max_6MiB max_128KiB max_1MiB max_32MiB
