#!/usr/bin/env bash
# How the receive queues of a network card lie on the cores, and how they could: irq-affinity.sh DEVICE [--rps] [--apply]
#
# One interrupt for each receive queue, on a core of its own; those of sending, configuration and the like are left alone. With
# --rps, where there are fewer queues than cores, receive packet steering hands packets on to the cores of the queue's turn;
# README.md (softnet) says what that was measured to cost. Prints the commands; runs them with --apply only (as root).
# irqbalance, where it runs, moves interrupts again: stop it, or ban these (IRQBALANCE_BANNED_INTERRUPTS).
# Source: kernel, Documentation/networking/scaling.rst and core-api/irq/irq-affinity.rst.
set -euo pipefail

# Where the kernel's files are; a test brings its own.
sys=${SYSFS:-/sys} proc=${PROCFS:-/proc}

usage() {
    echo "usage: irq-affinity.sh DEVICE [--rps] [--apply]; devices: $(ls "$sys/class/net" | tr '\n' ' ')" >&2
    exit 2
}
device= apply= rps=
for word in "$@"; do
    case $word in
    --apply) apply=$word ;;
    --rps) rps=$word ;;
    -*) usage ;;
    *) [ -z "$device" ] || usage; device=$word ;;
    esac
done
[ -n "$device" ] || usage
[ -d "$sys/class/net/$device" ] || { echo "there is no network device $device: ip link" >&2; exit 1; }

# Writes VALUE to FILE, or says how.
put() {
    if [ ! -e "$1" ]; then
        return
    elif [ "$(cat "$1" 2>/dev/null)" = "$2" ]; then
        echo "    as it should be: $1 is $2"
    elif [ "$apply" = --apply ]; then
        echo "$2" > "$1" && echo "    set: $1 to $2"
    else
        echo "    echo $2 > $1    # is $(cat "$1" 2>/dev/null || echo unreadable)"
    fi
}

# The mask of one core, or of all: words of 32 bits, the highest first.
mask() {
    python3 - "$@" <<'PY'
import sys
value = sum(1 << int(core) for core in sys.argv[1:])
words = []
while True:
    words.append(f"{value & 0xffffffff:x}" if value >> 32 == 0 else f"{value & 0xffffffff:08x}")
    value >>= 32
    if not value:
        break
print(",".join(reversed(words)))
PY
}

# The cores that are online, as 0-3,6.
cores=()
for range in $(tr ',' ' ' < "$sys/devices/system/cpu/online"); do
    for core in $(seq "${range%-*}" "${range#*-}"); do cores+=("$core"); done
done
queues=$(find "$sys/class/net/$device/queues" -name 'rx-*' | wc -l)
# Interrupts of the card by PCI, or of its virtio device, or whatever names the device.
directory=$(readlink -f "$sys/class/net/$device/device" 2>/dev/null || true)
interrupts=()
if [ -d "$directory/msi_irqs" ]; then
    interrupts=($(ls "$directory/msi_irqs" | sort -n))
elif [ -d "$directory/../msi_irqs" ]; then
    interrupts=($(ls "$directory/../msi_irqs" | sort -n))
else
    interrupts=($(awk -v name="$device" '$NF ~ name { sub(":", "", $1); print $1 }' "$proc/interrupts"))
fi

# What the driver calls an interrupt: the last word of its line. Without a name that is how it is raised, such as 1-edge.
name_of() { awk -v line="$1:" '$1 == line { print tolower($NF) }' "$proc/interrupts"; }

receiving=() alone=()
for interrupt in ${interrupts[@]+"${interrupts[@]}"}; do
    name=$(name_of "$interrupt")
    # A card may have one for all that it does, by the name of the device; beside others it is not that of a queue.
    [ "$name" != "${device,,}" ] || { alone+=("$interrupt"); continue; }
    case ${name#"${device,,}"} in
    '' | *-edge | *-level | *-fasteoi) ;;
    # Also those of a queue in both directions, such as eth0-Tx-Rx-0.
    *rx* | *input*) receiving+=("$interrupt") ;;
    *config* | *control* | *ctrl* | *output* | *-tx | *-tx-* | *-tx[0-9]* | *async* | *mgmnt* | *misc* | *event*) ;;
    *) receiving+=("$interrupt") ;;
    esac
done
[ "${#receiving[@]}" != 0 ] || receiving=(${alone[@]+"${alone[@]}"})
echo "$device: $queues receive queues, ${#receiving[@]} of ${#interrupts[@]} interrupts are theirs, ${#cores[@]} cores online"

at=0
for interrupt in ${receiving[@]+"${receiving[@]}"}; do
    put "$proc/irq/$interrupt/smp_affinity_list" "${cores[at % ${#cores[@]}]}"
    at=$((at + 1))
done

if [ -n "$rps" ] && [ "$queues" -lt "${#cores[@]}" ]; then
    echo "  fewer queues than cores: packets are handed on"
    for ((queue = 0; queue < queues; queue++)); do
        own=()
        for ((at = queue; at < ${#cores[@]}; at += queues)); do own+=("${cores[at]}"); done
        put "$sys/class/net/$device/queues/rx-$queue/rps_cpus" "$(mask "${own[@]}")"
    done
fi
