#!/usr/bin/env bash
# LimitMEMLOCK: how many shards start under a limit of locked memory, as a user that is not root. Says what postern says where none do.
. "$(dirname "$0")/lib.sh"
namespace
chmod 755 "$WORK"
for limit in 262144 524288 1048576 8388608 67108864; do
    for shards in 1 2 8; do
        DATA_DIR=$WORK/var-$limit-$shards
        mkdir -m 777 "$DATA_DIR"
        configure discard: 0s "$shards"
        if CORES=0-1 BEFORE="prlimit --memlock=$limit:$limit setpriv --reuid=65534 --clear-groups" start 2> "$WORK/said"; then
            echo "limit_KiB=$((limit / 1024)) shards=$shards starts locked_KiB=$(awk '/VmLck/ { print $2 }' "/proc/$EDGE/status")"
        else
            echo "limit_KiB=$((limit / 1024)) shards=$shards $(tail -1 "$WORK/said")"
        fi
        stop
        # The kernel gives locked memory of a ring back a moment after its process has ended.
        sleep 0.3
    done
done
