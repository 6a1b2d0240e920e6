#!/usr/bin/env bash
# The spool's device: durable-first mail (acknowledgement_delay = 0s) on an ext4 with one mount option or another, and beside a
# writer that never syncs. The file systems are in a file below WORK_IN (/var/tmp), on a loop device.
. "$(dirname "$0")/lib.sh"
namespace
truncate -s 3G "$WORK/image"
mkdir "$WORK/mount"
mounted() {
    # Nothing that it would do later, in the background.
    mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 "$WORK/image"
    mount -o "loop${1:+,$1}" "$WORK/image" "$WORK/mount"
    DATA_DIR=$WORK/mount/var
}
UNDO+=("umount $WORK/mount")
on() {
    mounted "$1"
    relay
    umount "$WORK/mount"
}
relatime() { on ""; }
noatime() { on noatime; }
nobarrier() { on barrier=0; }
journal() { on data=journal; }
# What no device can be faster than: there a sync does nothing.
memory() {
    mount -t tmpfs tmpfs "$WORK/mount"
    DATA_DIR=$WORK/mount/var
    relay
    umount "$WORK/mount"
}
turns relatime noatime nobarrier journal memory

# Another writer that never syncs, on the same file system; what it may keep dirty is what a sync may have to wait for.
beside() {
    mounted ""
    # Setting the one clears the other.
    set_machine "/proc/sys/vm/dirty_background_$1" "$2"
    set_machine "/proc/sys/vm/dirty_$1" "$3"
    touch "$WORK/going"
    (while [ -e "$WORK/going" ]; do dd if=/dev/zero of="$WORK/mount/other" bs=1M count=256 conv=notrunc 2>/dev/null; done) &
    local other=$!
    sleep 1
    MESSAGES=2000 relay
    rm "$WORK/going"
    wait "$other"
    umount "$WORK/mount"
}
dirty_ratio_20() { beside ratio 10 20; }
dirty_256MiB() { beside bytes 67108864 268435456; }
turns dirty_ratio_20 dirty_256MiB
