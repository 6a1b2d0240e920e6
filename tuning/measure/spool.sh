#!/usr/bin/env bash
# The spool's device: durable-first mail (acknowledgement_delay = 0s) on file systems of its own, one after the other, with other
# writers beside it. Makes ext4 and xfs in files below WORK_IN (/var/tmp) by loop devices.
. "$(dirname "$0")/lib.sh"
namespace
truncate -s 3G "$WORK/image"
mkdir "$WORK/mount"
mounted() {
    mkfs.ext4 -qF ${3:-} "$WORK/image"
    mount -o "loop${1:+,$1}" "$WORK/image" "$WORK/mount"
    DATA_DIR=$WORK/mount/var
}
UNDO+=("umount $WORK/mount")
relay() {
    hop_port
    inside taskset -c 1 "$LOADGEN" sink 127.0.0.1:$HOP > "$WORK/sink" 2>&1 &
    SINK=$!
    sleep 0.3
    configure smtp://127.0.0.1:$HOP 0s "${SHARDS:-1}"
    start
    load --connections 50 --messages "${MESSAGES:-8000}" --sources 127.0.0.2-127.0.0.20
    echo "a_second=$(figure messages_per_second) final_reply_p50_ms=$(ms final_reply_us/p50) final_reply_p99_ms=$(ms final_reply_us/p99)" \
        "messages=$(figure messages)"
    stop
}
on() {
    mounted "$1"
    relay
    umount "$WORK/mount"
}
relatime() { on ""; }
noatime() { on noatime; }
nobarrier() { on barrier=0; }
journal() { on data=journal; }
turns relatime noatime nobarrier journal

# Another writer that never syncs, on the same file system; what it may keep dirty bounds what a sync has to wait for.
beside() {
    mounted ""
    set_machine /proc/sys/vm/dirty_ratio "$1"
    set_machine /proc/sys/vm/dirty_background_ratio "$2"
    [ "$3" = 0 ] || { set_machine /proc/sys/vm/dirty_bytes "$3"; set_machine /proc/sys/vm/dirty_background_bytes "$4"; }
    (while :; do dd if=/dev/zero of="$WORK/mount/other" bs=1M count=1024 conv=notrunc 2>/dev/null; done) &
    local other=$!
    sleep 1
    MESSAGES=2000 relay
    kill "$other" 2>/dev/null || true
    wait "$other" 2>/dev/null || true
    echo 20 > /proc/sys/vm/dirty_ratio
    echo 10 > /proc/sys/vm/dirty_background_ratio
    umount "$WORK/mount"
}
dirty_ratio_20() { beside 20 10 0 0; }
dirty_256MiB() { beside 20 10 268435456 67108864; }
turns dirty_ratio_20 dirty_256MiB

# A core of the shard's own, or one that it shares with the kernel's workers and the client.
DATA_DIR=$WORK/var
shared() { CORES=$1 LOAD_CORE=$2 relay; }
one_core() { shared 0 0; }
two_cores() { shared 0 0-1; }
turns two_cores one_core
