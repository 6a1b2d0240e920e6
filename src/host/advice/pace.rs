//! Rows for mail that moves slowly, and for what takes more of the machine than it should.

use super::{Advice, Check, Wanted};

pub(super) const ROWS: &[Advice] = &[
    Advice {
        id: "receive-window",
        symptom: "Large messages from far away come slowly, though line and machine are idle.",
        see: "`ss -tmi 'sport = :25'`: `rcv_space` no longer grows, and octets a round trip are the same as that.",
        set: "`net.ipv4.tcp_rmem = 4096 131072 6291456`, the kernel's default (below 768 MiB of memory it is a 128th of that); the \
              last number is the bound. What a line can carry at most is the bound divided by the round trip.",
        why: "a sender never has more on its way than this",
        cost: "Up to so much memory for a connection whose sender is faster than postern reads; `tcp_mem` bounds all of them.",
        measured: "[measure/window.sh](measure/window.sh), messages of 4 MB from 100 ms away, one connection: with 128 KiB 0.70 MB/s in each \
                   round; with 1 MiB 1.2 (1.0 to 1.4), with 6 MiB 1.3 (0.9 to 1.6), with 32 MiB 1.7 (1.4 to 1.9). So 128 KiB is too \
                   little; that more than 6 MiB helps could not be told from noise.",
        source: "tcp(7); kernel, Documentation/networking/ip-sysctl.rst.",
        counters: &["TcpExtTCPRcvCollapsed", "TcpExtPruneCalled"],
        check: Check::Sysctl("net.ipv4.tcp_rmem", Wanted::Buffer(6_291_456)),
    },
    Advice {
        id: "send-buffer",
        symptom: "Large messages to a next hop far away go slowly.",
        see: "`ss -tmi 'dport = :25'`: `sndbuf_limited` is a large share of `busy`.",
        set: "`net.ipv4.tcp_wmem = 4096 16384 4194304`, the kernel's default (below 512 MiB of memory it is a 128th of that). `net.ipv4.tcp_notsent_lowat` may stay as it is.",
        why: "what is on its way has to be kept until it is acknowledged",
        cost: "Up to so much memory for a connection to a hop that is slow.",
        measured: "[measure/send_buffer.sh](measure/send_buffer.sh), messages of 2 MB to a hop 100 ms away, 4 connections: with 256 KiB 6.4 \
                   MB/s (6.3 to 6.5) and 1.06 s to the final reply; with 4 MiB 16.5 MB/s (14.8 to 18.3) and 0.30 s. \
                   `tcp_notsent_lowat` of 128 KiB beside it: the same pace (0.95) and 0.59 of the memory in sockets, 1200 \
                   pages in place of 2100; worth it only where that is short.",
        source: "tcp(7); kernel, Documentation/networking/ip-sysctl.rst.",
        counters: &[],
        check: Check::Sysctl("net.ipv4.tcp_wmem", Wanted::Buffer(4_194_304)),
    },
    Advice {
        id: "socket-memory",
        symptom: "`TCP: out of memory` in the kernel's log, or all connections become slow at once.",
        see: "`grep TCP: /proc/net/sockstat`: `mem` comes near the second number of `sysctl net.ipv4.tcp_mem` (pages of 4 KiB).",
        set: "`net.ipv4.tcp_mem` twice as large; more memory, where the host has none left.",
        why: "beyond that number the kernel shrinks the windows of all connections",
        cost: "Memory that other programs do not have.",
        measured: "Could not be measured here: it holds for a whole machine, and others used this one.",
        source: "tcp(7).",
        counters: &["TcpExtTCPMemoryPressures", "TcpExtTCPAbortOnMemory"],
        check: Check::SocketMemory,
    },
    Advice {
        id: "shards",
        symptom: "More shards than cores.",
        see: "`nproc`, or `taskset -pc PID`; `shards` in `postern check`.",
        set: "`shards = 0`: a shard for each core that the process may run on.",
        why: "shards that share a core take turns, and each waits for the other",
        cost: "None.",
        measured: "[measure/cores.sh](measure/cores.sh), 50 connections, one core: 36,200 messages/s with one shard, 29,400 with two (0.81), \
                   29,200 with four (0.81); CPU time a message 1.20 and 1.26 of one shard's, final reply p99 1.25 and 2.6.",
        source: "src/server/shards.rs.",
        counters: &[],
        check: Check::Shards,
    },
    Advice {
        id: "quota",
        symptom: "Replies wait for tens of milliseconds in a container, though it seems to be idle.",
        see: "`nr_throttled` in `cpu.stat` of the control group rises.",
        set: "As many shards as the quota has cores (`shards = 1` for `--cpus 1`), or cores of its own (`--cpuset-cpus`) in place \
              of a quota.",
        why: "all shards draw on one account, and stand still together until the next tenth of a second when it is empty",
        cost: "One shard cannot use what a second core would have had to spare.",
        measured: "[measure/cores.sh](measure/cores.sh), a quota of half a core, 50 connections: 12,800 messages/s with one shard and 10,800 \
                   with two (0.84 of them), CPU time a message 1.18, final reply p99 51 and 57 ms: both stand still for half of \
                   each tenth of a second, and two shards get there sooner.",
        source: "kernel, Documentation/scheduler/sched-bwc.rst.",
        counters: &[],
        check: Check::Quota,
    },
    Advice {
        id: "huge-pages",
        symptom: "The edge takes far more memory than its connections need.",
        see: "`grep AnonHugePages /proc/PID/smaps_rollup`.",
        set: "`Environment=MIMALLOC_ALLOW_THP=0` in the unit.",
        why: "the allocator asks for huge pages, and a page that is touched once takes 2 MiB",
        cost: "None that could be measured: pace and CPU time a message are the same within the noise (0.97 and 0.8 to 1.06).",
        measured: "[measure/huge_pages.sh](measure/huge_pages.sh), two shards, 5000 idle clients after 20,000 messages, resident memory: 26 MB \
                   with `never`, 93 MB with `madvise` and with `always`, of which 74 MB are huge pages; 27 MB with `always` and \
                   `MIMALLOC_ALLOW_THP=0`.",
        source: "kernel, Documentation/admin-guide/mm/transhuge.rst; mimalloc, `mi_option_allow_thp`.",
        counters: &[],
        check: Check::HugePages,
    },
    Advice {
        id: "clock-source",
        symptom: "Much CPU time in `clock_gettime`, in a guest or on an old board.",
        see: "`cat /sys/devices/system/clocksource/clocksource0/current_clocksource`; in the kernel's log why it left tsc.",
        set: "`clocksource=tsc` on the kernel's command line, where the log does not say that it is unstable; in a guest the clock \
              of its hypervisor.",
        why: "the other clocks cost a system call or a slow device each time a timer is looked at",
        cost: "A tsc that is not steady makes timers wrong.",
        measured: "Could not be measured here: it holds for a whole machine, and others used this one.",
        source: "kernel, Documentation/admin-guide/kernel-parameters.txt, `clocksource=`.",
        counters: &[],
        check: Check::ClockSource,
    },
    Advice {
        id: "drain",
        symptom: "Transactions are cut off at a restart.",
        see: "The journal says that systemd killed the service.",
        set: "`TimeoutStopSec` above `drain_timeout` plus 5 s; the unit has 45 s.",
        why: "who is killed in the drain loses what was under way, and its senders try again",
        cost: "A restart may take that long.",
        measured: "Nothing to measure: systemd waits as long as it is told.",
        source: "systemd.service(5).",
        counters: &[],
        check: Check::Drain,
    },
];
