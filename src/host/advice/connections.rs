//! Rows for clients that cannot connect, or wait to be greeted.

use super::{Advice, BACKLOG, Check, Wanted};

pub(super) const ROWS: &[Advice] = &[
    Advice {
        id: "listen-queue",
        symptom: "Connections time out or take whole seconds under a burst, and the log says nothing. They were dropped before \
                  postern saw them, because the queue of a listening socket was full. postern asks for 4096 places for each \
                  shard and address; the kernel gives at most `net.core.somaxconn`.",
        see: "`nstat -az TcpExtListenOverflows TcpExtListenDrops` rises; `ss -ltn` shows the queue's length (Recv-Q) and its \
              bound (Send-Q).",
        set: "`net.core.somaxconn = 4096`; restart postern, since a queue keeps the size it was made with.",
        why: "a client that finds the queue full is dropped and tries again after 1 s, then 2, then 4",
        cost: "Kernel memory for each connection that waits.",
        measured: "[measure/backlog.sh](measure/backlog.sh), 2000 clients while the edge stands still for 0.3 s: with 128 the slowest hundredth \
                   is greeted 1.29 s (1.25 to 2.26) after its first SYN, some 3100 SYNs dropped; with 4096 after 0.40 s (0.40 to \
                   0.63), none dropped: 0.31 of the time. (From the first SYN to 220. The script tells `connect` and `greeting` \
                   apart since: a SYN that is dropped shows in the former, a last ACK of the handshake in the latter.)",
        source: "listen(2); kernel, Documentation/networking/ip-sysctl.rst.",
        counters: &["TcpExtListenOverflows", "TcpExtListenDrops"],
        check: Check::Sysctl("net.core.somaxconn", Wanted::AtLeast(BACKLOG)),
    },
    Advice {
        id: "syn-cookies",
        symptom: "Nobody can connect while SYNs flood in from addresses that never answer.",
        see: "`nstat -az TcpExtTCPReqQFullDrop TcpExtTCPReqQFullDoCookies TcpExtSyncookiesSent`; `ss -tan state syn-recv | wc -l`.",
        set: "`net.ipv4.tcp_syncookies = 1`, the kernel's default. `tcp_max_syn_backlog` need not be touched: with cookies the \
              bound of half-open connections is the queue's own (`somaxconn`), and what does not fit gets a cookie.",
        why: "without cookies a flood of SYNs keeps everybody out",
        cost: "A connection made by a cookie has no window scaling unless the client sends timestamps.",
        measured: "[measure/syn_flood.sh](measure/syn_flood.sh), 5000 such SYNs a second, honest clients at 200 a second: without cookies none \
                   of 800 messages came in, with `tcp_max_syn_backlog` at 128 as at 4096; with cookies all 800, the slowest \
                   hundredth greeted within 0.5 ms (128) and 0.8 ms (4096) of its first SYN, `connect` and `greeting` together.",
        source: "kernel, Documentation/networking/ip-sysctl.rst; net/ipv4/tcp_input.c, tcp_conn_request.",
        counters: &[
            "TcpExtTCPReqQFullDoCookies",
            "TcpExtTCPReqQFullDrop",
            "TcpExtSyncookiesSent",
        ],
        check: Check::Sysctl("net.ipv4.tcp_syncookies", Wanted::AtLeast(1)),
    },
    Advice {
        id: "abort-on-overflow",
        symptom: "Clients report `connection reset` under a burst.",
        see: "`sysctl net.ipv4.tcp_abort_on_overflow`; `nstat -az TcpExtListenOverflows` rises.",
        set: "`net.ipv4.tcp_abort_on_overflow = 0`, the kernel's default.",
        why: "a mail server that is reset may defer for many minutes, one that waits comes again within a second",
        cost: "Clients wait instead of hearing at once that it is busy.",
        measured: "[measure/backlog.sh](measure/backlog.sh), the burst of listen-queue with 128 places: without it no connection failed; with \
                   it 0, 73 and 74 of some 2000 were reset in three rounds, and in two more some 1000 clients were left with a \
                   connection that the host no longer knew, waiting for a greeting.",
        source: "kernel, Documentation/networking/ip-sysctl.rst.",
        counters: &["TcpExtListenOverflows"],
        check: Check::Sysctl("net.ipv4.tcp_abort_on_overflow", Wanted::Exactly(0)),
    },
    Advice {
        id: "open-files",
        symptom: "`max_connections is more than the limit of open files allows` in the log, or clients are refused below \
                  `max_connections`. A connection takes a file; so do the listening sockets and rings of each shard, and each \
                  message while it is written. postern lifts its soft limit to the hard one when it starts.",
        see: "`postern_accept_errors_total` rises; `grep 'open files' /proc/PID/limits`; `ls /proc/PID/fd | wc -l`.",
        set: "`LimitNOFILE=131072`, at any rate well above `max_connections`. Above `sysctl fs.nr_open` it cannot be set.",
        why: "a connection is a file: what does not fit is refused",
        cost: "A bound on a leak is gone; `max_connections` is the bound that is meant.",
        measured: "[measure/descriptors.sh](measure/descriptors.sh), 3000 clients: with 1024 files between 375 and 625 sessions, 4700 \
                   connections refused with 421; with 16384 all 3000, none refused. No accept failed in either. (131072 could \
                   not be set here: the right to raise limits is missing.)",
        source: "src/server/preflight.rs, src/shard/listener.rs; systemd.exec(5).",
        counters: &[],
        check: Check::OpenFiles,
    },
    Advice {
        id: "conntrack",
        symptom: "`nf_conntrack: table full, dropping packet` in the kernel's log, or new connections take long on a host with a \
                  firewall. Each connection stays in its table for two minutes after it was closed.",
        see: "`cat /proc/sys/net/netfilter/nf_conntrack_count /proc/sys/net/netfilter/nf_conntrack_max`; `conntrack -S` shows \
              `drop` and `early_drop`.",
        set: "Do not track port 25: `nft 'table inet postern { chain prerouting { type filter hook prerouting priority raw; tcp \
              dport 25 notrack; }; chain output { type filter hook output priority raw; tcp sport 25 notrack; }; }'`; or `net.netfilter.nf_conntrack_max` of four times `max_connections` and more.",
        why: "a full table drops packets of connections that nobody refused",
        cost: "Rules by `ct state` do not see what is not tracked. A larger table is some 300 bytes an entry.",
        measured: "[measure/conntrack.sh](measure/conntrack.sh), a connection for each message: tracked and not tracked are the same within \
                   the noise (pace 0.90 and 0.85 of no firewall, CPU time a message 1.03 and 1.07; 147 µs). With room for 2000 and \
                   more than that closed within the last two minutes, not one of 6000 messages came in.",
        source: "kernel, Documentation/networking/nf_conntrack-sysctl.rst.",
        counters: &[],
        check: Check::Conntrack,
    },
    Advice {
        id: "softnet",
        symptom: "Segments come twice, and one core is full while others rest: all packets are handled on it.",
        see: "The second column of `/proc/net/softnet_stat` (dropped) rises; `mpstat -P ALL` shows one core in `%soft`; \
              `grep eth0 /proc/interrupts`.",
        set: "[irq-affinity.sh](irq-affinity.sh) shows how the queues of a card lie on the cores and how they could, with `--rps` \
              also how packets could be handed on to more cores than there are queues; with `--apply` it sets that. More packets \
              may wait with `net.core.netdev_max_backlog = 4096`.",
        why: "a core that cannot keep up drops packets, whatever postern does",
        cost: "An interrupt to another core for each batch of packets. A longer queue adds latency before it drops.",
        measured: "[measure/steering.sh](measure/steering.sh), packets of a veth handed by RPS to a core: to the shard's own 23,800 \
                   messages/s in place of 34,600 (0.69), CPU time a message 1.45; to the other one no difference (1.01). So steer \
                   only where the counter rises. Interrupts and `netdev_max_backlog` could not be measured here: a veth has no \
                   interrupts, the card is the hypervisor's, and no mail of these runs filled that queue.",
        source: "kernel, Documentation/networking/scaling.rst.",
        counters: &["TcpExtTCPBacklogDrop", "TcpRetransSegs"],
        check: Check::Softnet,
    },
    Advice {
        id: "migrate",
        symptom: "Clients are reset at a restart.",
        see: "`nstat -az TcpExtTCPMigrateReqSuccess TcpExtTCPMigrateReqFailure TcpOutRsts`.",
        set: "Nothing. `net.ipv4.tcp_migrate_req` hands connections that wait from a socket that is closed to another one of \
              the same port; postern's sockets stay open over a reload, and at a stop all of them go together. A sender that \
              is refused tries again.",
        why: "a reload closes no socket",
        cost: "None.",
        measured: "[measure/migrate.sh](measure/migrate.sh), 1000 new clients a second on two shards: over ten reloads no connection failed, \
                   with 0 as with 1; at a stop 120 were refused with 0 and 115 with 1, and none was handed on.",
        source: "kernel, Documentation/networking/ip-sysctl.rst; src/server/listening.rs.",
        counters: &["TcpExtTCPMigrateReqSuccess", "TcpExtTCPMigrateReqFailure"],
        check: Check::Guide,
    },
    Advice {
        id: "ports",
        symptom: "`cannot connect: Cannot assign requested address` in a `delivery` line, or thousands of sockets in TIME_WAIT.",
        see: "`ss -tan state time-wait | wc -l`; `nstat -az TcpExtTCPTimeWaitOverflow`.",
        set: "Nothing. A shard keeps at most `max_connections` connections to an address of a hop and sends message after \
              message over them. The TIME_WAIT of a client's connection is on our side, of port 25, and takes no port from \
              anybody; `tcp_tw_reuse` and `ip_local_port_range` change nothing about it.",
        why: "an edge opens few connections, and closes those of others first",
        cost: "A socket in TIME_WAIT is some 250 bytes for a minute.",
        measured: "[measure/ports.sh](measure/ports.sh): 6000 connections one after the other from one address with 2000 ports: none failed, \
                   with `tcp_tw_reuse` 0 as with 1, all of TIME_WAIT on the edge's side and none on the client's. 20,000 messages \
                   to one hop took 32 ports, with a range of 100 as with one of 28,000, none deferred.",
        source: "RFC 9293 section 3.6; kernel, Documentation/networking/ip-sysctl.rst.",
        counters: &["TcpExtTW", "TcpExtTCPTimeWaitOverflow"],
        check: Check::Guide,
    },
    Advice {
        id: "own-limits",
        symptom: "`421 4.3.2 The maximum number of concurrent ...`. A limit of postern, not of the host.",
        see: "`postern_events_total` by event; the `limit` of the session lines.",
        set: "`max_connections`, `max_connections_per_source`, for a well-known sender or a load balancer in a binding of its \
              own. Behind a proxy all clients come from one address: let it send the PROXY header (`proxy_protocol`, \
              `proxy_from`).",
        why: "it is meant",
        cost: "Memory for each session; what one source can take from the others.",
        measured: "Nothing to measure: the limit holds exactly.",
        source: "src/policy/tally.rs.",
        counters: &[],
        check: Check::Guide,
    },
    Advice {
        id: "resources",
        symptom: "`452 4.3.1 Insufficient system resources`.",
        see: "The log line `resources are low` names the resource, what is free and the limit; `postern_free_disk_bytes`, \
              `postern_free_memory_bytes`.",
        set: "More disk or memory, or lower `min_free_disk`, `min_free_memory`. In a container the memory is that of its control \
              group.",
        why: "it is meant",
        cost: "A full disk is noticed when a message cannot be written; it is then refused with a 4xx all the same.",
        measured: "Nothing to measure: the limit holds exactly.",
        source: "src/policy/resources.rs.",
        counters: &[],
        check: Check::Guide,
    },
];
