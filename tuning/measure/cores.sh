#!/usr/bin/env bash
# Shards, cores and CPU quotas: as many shards as cores and more; a quota of one core's time with one shard and with two.
. "$(dirname "$0")/lib.sh"
namespace
run() {
    configure discard: 30s "$1"
    CORES=$2 start
    # All of its threads.
    [ -z "${GROUP:-}" ] || echo "$EDGE" > "$GROUP/cgroup.procs"
    load --connections 50 --duration 2s --warm-up 500ms --pid "$EDGE" --sources 127.0.0.2-127.0.0.20
    echo "a_second=$(figure messages_per_second) final_reply_p50_ms=$(ms final_reply_us/p50) final_reply_p99_ms=$(ms final_reply_us/p99)" \
        "cpu_us=$(figure server_cpu_us_per_message)"
    stop
}
one_shard_on_a_core() { run 1 0; }
two_shards_on_a_core() { run 2 0; }
four_shards_on_a_core() { run 4 0; }
turns one_shard_on_a_core two_shards_on_a_core four_shards_on_a_core

# Half a core's time, as --cpus 0.5 of a container, spent by one thread or by two at once.
GROUPS_AT=/sys/fs/cgroup
if [ -e "$GROUPS_AT/cgroup.controllers" ]; then
    # Version 2. Groups below the root have a quota only where it hands the controller on, which systemd may not have done.
    if ! grep -qw cpu "$GROUPS_AT/cgroup.subtree_control"; then
        echo +cpu > "$GROUPS_AT/cgroup.subtree_control"
        UNDO+=("echo -cpu > $GROUPS_AT/cgroup.subtree_control")
    fi
    QUOTA=cpu.max QUOTA_VALUE="50000 100000"
else
    GROUPS_AT=$GROUPS_AT/cpu QUOTA=cpu.cfs_quota_us QUOTA_VALUE=50000
fi
GROUP=$GROUPS_AT/$NS
mkdir "$GROUP"
UNDO+=("rmdir $GROUP")
echo "$QUOTA_VALUE" > "$GROUP/$QUOTA"
quota_one_shard() { run 1 0-1; }
quota_two_shards() { run 2 0-1; }
turns quota_one_shard quota_two_shards
