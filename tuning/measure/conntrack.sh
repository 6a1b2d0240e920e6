#!/usr/bin/env bash
# Connection tracking: one connection for each message, untracked, tracked, and tracked with a table that is too small. Wants nft.
. "$(dirname "$0")/lib.sh"
namespace
rules() {
    inside nft flush ruleset
    case $1 in
    tracked) inside nft -f - <<< 'table inet m { chain c { type filter hook input priority 0; ct state invalid drop; }; }' ;;
    notrack) inside nft -f - <<< 'table inet m {
        chain r { type filter hook prerouting priority raw; tcp dport 2525 notrack; tcp sport 2525 notrack; };
        chain o { type filter hook output priority raw; tcp dport 2525 notrack; tcp sport 2525 notrack; };
        chain c { type filter hook input priority 0; ct state invalid drop; }; }' ;;
    esac
}
run() {
    rules "$1"
    # One limit for the machine; entries are counted in each namespace.
    set_machine /proc/sys/net/netfilter/nf_conntrack_max "${2:-262144}"
    configure
    start
    load --connections 50 --per-connection 1 --messages 6000 --pid "$EDGE" --sources 127.0.0.2-127.0.0.20
    echo "a_second=$(figure messages_per_second) cpu_us=$(figure server_cpu_us_per_message) $(slowest)" \
        "tracked=$(inside cat /proc/sys/net/netfilter/nf_conntrack_count) failed=$(figure failures_in_whole_run)"
    stop
}
no_firewall() { run none; }
untracked() { run notrack; }
tracked() { run tracked; }
tracked_table_of_2000() { run tracked 2000; }
turns no_firewall tracked untracked tracked_table_of_2000
