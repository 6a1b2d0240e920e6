#!/usr/bin/env bash
# ../seccomp-docker.json without Docker: the edge under it, into a Maildir and to a next hop, and the same without io_uring in it.
. "$(dirname "$0")/lib.sh"
namespace
hop_port
ip netns exec "$NS" "$LOADGEN" sink "127.0.0.1:$HOP" > "$WORK/sink" 2>&1 &
SINK=$!
for hop in "smtp://127.0.0.1:$HOP" "maildir:$WORK/mail"; do
    configure "$hop" 0s 2
    CORES=0-1 BEFORE="python3 $HERE/seccomp.py $HERE/../seccomp-docker.json none" start
    load --connections 20 --messages 500
    echo "with the profile: $(figure messages) of 500 messages taken for ${hop%%:*}:"
    kill -TERM "$EDGE"
    wait "$EDGE" || true
    EDGE=
done
CORES=0-1 BEFORE="python3 $HERE/seccomp.py $HERE/../seccomp-docker.json io_uring_setup,io_uring_enter,io_uring_register" start || true
