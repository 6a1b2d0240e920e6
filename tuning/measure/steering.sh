#!/usr/bin/env bash
# Receive packet steering: clients behind a veth; its packets are handled on the shard's core, on the other one, or where they come from.
. "$(dirname "$0")/lib.sh"
namespace
veth_to -far 24
ADDRESS=0.0.0.0
run() {
    inside sh -c "echo $1 > /sys/class/net/mE$$/queues/rx-0/rps_cpus"
    configure
    start
    ip netns exec "$NS-far" taskset -c 1 "$LOADGEN" 10.66.0.1:2525 --target-is-mine --silent --json "$WORK/run.json" \
        --connections 50 --duration 2s --warm-up 500ms --pid "$EDGE" > "$WORK/run.txt" 2>&1 || true
    echo "a_second=$(figure messages_per_second) final_reply_p99_ms=$(ms final_reply_us/p99) cpu_us=$(figure server_cpu_us_per_message)"
    stop
}
unset_0() { run 0; }
core_of_the_shard_1() { run 1; }
other_core_2() { run 2; }
turns unset_0 core_of_the_shard_1 other_core_2
