# What the measurements beside this file share; sourced by them, does nothing by itself.
#
# Each measurement runs variants in turns (A B A B ...) in network namespaces of its own, which it makes and removes, and prints
# every round and the medians with their ratios to the first variant. Wants root, iproute2, python3, and
#   cargo build --profile dist --bin postern && cargo build --release -p loadgen
# Settings that are not of a namespace are put back at the end, also after an interrupt.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
POSTERN=${POSTERN:-$ROOT/target/dist/postern}
LOADGEN=${LOADGEN:-$ROOT/target/release/loadgen}
ROUNDS=${ROUNDS:-3}
NS=postern-$$
EDGE=
SINK=
UNDO=()

for program in "$POSTERN" "$LOADGEN"; do
    [ -x "$program" ] || { echo "no $program: build it, or name it with POSTERN= and LOADGEN=" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "namespaces want root" >&2; exit 1; }
WORK=$(mktemp -d "${WORK_IN:-/var/tmp}/postern-measure.XXXXXX")

finish() {
    stop
    if [ -e "$WORK/before" ]; then
        while IFS='=' read -r path value; do echo "$value" > "$path" || true; done < "$WORK/before" 2>/dev/null
    fi
    # Last done, first undone.
    for ((at = ${#UNDO[@]} - 1; at >= 0; at--)); do eval "${UNDO[at]}" 2>/dev/null || true; done
    ip netns list | grep -o "^$NS[a-z-]*" | while read -r name; do ip netns del "$name"; done 2>/dev/null || true
    rm -rf "$WORK"
}
trap finish EXIT
trap 'exit 130' INT TERM

# A namespace by its suffix, with a loopback.
namespace() {
    ip netns add "$NS${1:-}"
    ip -n "$NS${1:-}" link set lo up
}

# A namespace by its suffix behind a veth: 10.66.0.1 is here (mE$$), 10.66.0.2 there (mF$$). Arguments are SUFFIX PREFIX_LENGTH.
veth_to() {
    namespace "$1"
    ip link add mE"$$" netns "$NS" type veth peer name mF"$$" netns "$NS$1"
    ip -n "$NS" addr add "10.66.0.1/$2" dev mE"$$"
    ip -n "$NS" link set mE"$$" up
    ip -n "$NS$1" addr add "10.66.0.2/$2" dev mF"$$"
    ip -n "$NS$1" link set mF"$$" up
}

# The namespace -far behind a slow line, 50 ms each way (delay.py: this kernel has no netem): 10.66.0.1 is here, 10.66.0.2 there.
slow_line_to_far() {
    namespace -far
    taskset -c 1 python3 "$HERE/delay.py" "$NS" 10.66.0.1/24 "$NS-far" 10.66.0.2/24 50 &
    UNDO+=("kill $!")
    sleep 1
}

# Runs to its end in the namespace. (What is put into the background is called without it, so that $! is the program itself.)
inside() { ip netns exec "$NS" "$@"; }

# A sysctl of the namespace.
set_here() { inside sysctl -qw "$1"; }

# A setting of the whole machine, as a file: PATH VALUE. What was there first is put back at the end, also where a variant sets it,
# which runs in a subshell: so it is kept in a file.
set_machine() {
    if ! grep -qs "^$1=" "$WORK/before"; then
        # Of a list such as "always [madvise] never" the one in force.
        echo "$1=$(sed 's/.*\[\(.*\)\].*/\1/' "$1")" >> "$WORK/before"
    fi
    echo "$2" > "$1"
}

# A configuration for measuring: every limit on and out of the way. CONFIG=file; arguments are NEXT_HOP ACKNOWLEDGEMENT_DELAY SHARDS.
configure() {
    CONFIG=$WORK/postern.toml
    cat > "$CONFIG" <<TOML
hostname = "mx.example.com"
data_dir = "${DATA_DIR:-$WORK/var}"
shards = ${3:-1}
drain_timeout = "5s"
[[binding]]
name = "mx"
address = ["${ADDRESS:-127.0.0.1}:2525"]
[limits]
max_connections = 40000
max_connections_per_source = 40000
message_rate = 1000000
connection_timeout = "1h"
inactivity_timeout = "1h"
acknowledgement_delay = "${2:-30s}"
max_message_size = "100MiB"
[domains]
accepted = ["*"]
[queue]
memory = "1GiB"
[[next_hop]]
to = ["${1:-discard:}"]
tls = "off"
TOML
}

# A port for a next hop that no earlier run has left in TIME_WAIT.
hop_port() { HOP=$((20000 + RANDOM % 10000)); }

# Starts the edge in the namespace on the cores CORES (0), with what BEFORE says in front, and waits until it serves.
start() {
    # A prefix that execs, so that $! is the edge itself.
    ip netns exec "$NS" taskset -c "${CORES:-0}" ${BEFORE:-} "$POSTERN" --config "$CONFIG" 2> "$WORK/log" &
    EDGE=$!
    for _ in $(seq 200); do
        grep -q 'postern ready' "$WORK/log" && return 0
        kill -0 "$EDGE" 2>/dev/null || { cat "$WORK/log" >&2; return 1; }
        sleep 0.05
    done
    return 1
}

stop() {
    for process in $EDGE $SINK; do
        kill -CONT "$process" 2>/dev/null || true
        kill -TERM "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    EDGE= SINK=
}

# Runs loadgen in the namespace on the core LOAD_CORE (1), with LOAD_THREADS (1) executors, each of which opens some 128
# connections before it waits; its figures go to $WORK/run.json.
load() {
    rm -f "$WORK/run.json"
    inside taskset -c "${LOAD_CORE:-1}" "$LOADGEN" "${TARGET:-127.0.0.1:2525}" --cores "${LOAD_THREADS:-1}" --silent \
        --json "$WORK/run.json" "$@" > "$WORK/run.txt" 2>&1 || true
}

# A figure of the last run, by its path in the JSON: messages_per_second, stages/connect/p99. 0 where there is none.
figure() {
    python3 - "$WORK/run.json" "$1" <<'PY'
import json, sys
try:
    value = json.load(open(sys.argv[1]))
    for key in sys.argv[2].split("/"):
        value = value[key]
except (OSError, KeyError, TypeError):
    value = 0
print(round(value or 0, 3))
PY
}

# A figure in microseconds as milliseconds.
ms() { python3 -c "print(round($(figure "$1") / 1000, 3))"; }

# How long the slowest hundredth took to be connected, and from there to be greeted. A SYN that was dropped shows in the first; the
# last ACK of a handshake that was, and an edge that is slow to accept, in the second.
slowest() { echo "connect_p99_ms=$(ms stages/connect/p99) greeting_p99_ms=$(ms stages/greeting/p99)"; }

# A counter of the namespace's TCP, since the namespace was made.
counter() { inside nstat -asz "$1" 2>/dev/null | awk -v name="$1" '$1 == name { print $2 }'; }

# CPU seconds of a process so far.
cpu() { awk '{ print ($14 + $15) / 100 }' "/proc/$1/stat"; }

# Relays MESSAGES (8000) durable first, with SHARDS (1), to a sink on core 1.
relay() {
    hop_port
    ip netns exec "$NS" taskset -c 1 "$LOADGEN" sink 127.0.0.1:$HOP > "$WORK/sink" 2>&1 &
    SINK=$!
    sleep 0.3
    configure smtp://127.0.0.1:$HOP 0s "${SHARDS:-1}"
    start
    load --connections 50 --messages "${MESSAGES:-8000}" --sources 127.0.0.2-127.0.0.20
    echo "a_second=$(figure messages_per_second) final_reply_p50_ms=$(ms final_reply_us/p50) final_reply_p99_ms=$(ms final_reply_us/p99)" \
        "messages=$(figure messages)"
    stop
}

# Variants in turns: each argument is a function that prints key=value words. Prints every round, then medians and ratios.
turns() {
    local round variant
    for round in $(seq "$ROUNDS"); do
        for variant in "$@"; do
            echo "$round $variant $($variant)"
        done
    done | tee "$WORK/rounds"
    python3 - "$WORK/rounds" <<'PY'
import statistics, sys
rounds = {}
for line in open(sys.argv[1]):
    words = line.split()
    for word in words[2:]:
        key, value = word.split("=")
        rounds.setdefault(words[1], {}).setdefault(key, []).append(float(value))
first = next(iter(rounds.values()))
for variant, figures in rounds.items():
    print(f"median {variant}")
    for key, values in figures.items():
        base = statistics.median(first[key])
        ratio = f", {statistics.median(values) / base:.2f} of the first" if base else ""
        print(f"    {key} {statistics.median(values):g} ({min(values):g} to {max(values):g}){ratio}")
PY
}
