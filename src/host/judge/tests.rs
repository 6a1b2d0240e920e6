//! The advice held against made-up hosts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::host::facts::Syncs;
use crate::host::proc::{Host, Tried};

/// A host on which everything is as advised, as files.
const GOOD: &[(&str, &str)] = &[
    (
        "proc/self/status",
        "Name:\tsh\nGid:\t1000\t1000\t1000\t1007\nGroups:\t5 77 \nCapEff:\t0000000000000000\nSeccomp:\t0\n",
    ),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            1024                 131072               files     \n\
         Max locked memory         8388608              8388608              bytes     \n",
    ),
    ("proc/self/environ", "HOME=/root\0MIMALLOC_ALLOW_THP=0\0"),
    ("proc/self/cgroup", "0::/system.slice/postern.service\n"),
    ("sys/fs/cgroup/system.slice/postern.service/cpu.max", "max 100000\n"),
    (
        "sys/fs/cgroup/system.slice/postern.service/cpu.stat",
        "usage_usec 5\nnr_throttled 3\n",
    ),
    (
        "proc/self/net/netstat",
        "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: InOctets\nIpExt: 5\n",
    ),
    ("proc/self/net/snmp", "Tcp: RtoAlgorithm RetransSegs\nTcp: 1 9\n"),
    (
        "proc/self/net/sockstat",
        "sockets: used 9\nTCP: inuse 5 orphan 0 tw 4 alloc 9 mem 2\n",
    ),
    (
        "proc/self/net/softnet_stat",
        "0000000a 00000000 00000000\n0000000b 00000000 00000000\n",
    ),
    (
        "proc/self/net/tcp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
         0: 0100007F:09DD 00000000:0000 0A 00000000:00000005 00:00000000 00000000     0        0 1 1\n   \
         1: 0100007F:09DD 0100007F:1111 01 00000000:00000007 00:00000000 00000000     0        0 1 1\n   \
         2: 0100007F:0016 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1 1\n",
    ),
    (
        "proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 0:21 / /tmp rw - tmpfs tmpfs rw\n\
         24 22 8:2 / /var rw,noatime - xfs /dev/sda2 rw\n",
    ),
    ("sys/dev/block/8:2/queue/write_cache", "write back\n"),
    (
        "proc/meminfo",
        "MemTotal:        8000000 kB\nMemFree:          900000 kB\n",
    ),
    ("proc/sys/kernel/version", "#1 SMP PREEMPT Mon\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/sys/kernel/io_uring_group", "-1\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/net/core/somaxconn", "65535\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/tcp_abort_on_overflow", "0\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/ipv4/tcp_mem", "100\t200\t300\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
];

fn needs() -> Needs {
    Needs {
        shards: 2,
        files: 6000,
        connections: 5000,
        ports: vec![2525],
        data_dir: "/var/lib/postern".into(),
        drain: Duration::from_secs(30),
    }
}

fn tried() -> Tried {
    let syncs = Syncs {
        p50: Duration::from_micros(300),
        p99: Duration::from_micros(900),
        count: 30,
    };
    Tried {
        ring: Ok(()),
        syncs: Ok(syncs),
        cores: 2,
    }
}

/// The verdicts on the good host with some files written otherwise; one without text is not there.
fn judged_with(changed: &[(&str, &str)], whose: Whose, needs: &Needs, tried: Tried) -> Vec<Finding> {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (path, text) in GOOD {
        write(path, text);
    }
    for (path, text) in changed {
        match *text {
            "" => fs::remove_file(root.path().join(path)).unwrap(),
            text => write(path, text),
        }
    }
    judge(&Host::new(root.path(), whose).read(needs, tried), needs)
}

fn judged(changed: &[(&str, &str)]) -> Vec<Finding> {
    judged_with(changed, Whose::Shell, &needs(), tried())
}

fn of<'f>(findings: &'f [Finding], id: &str) -> &'f Finding {
    findings.iter().find(|finding| finding.advice.id == id).unwrap()
}

/// The names of what is to change.
fn changes(findings: &[Finding]) -> Vec<&'static str> {
    let changes = findings.iter().filter(|f| f.verdict.name() == "change");
    changes.map(|f| f.advice.id).collect()
}

#[test]
fn a_host_that_is_as_advised_or_better_has_nothing_to_change_or_to_know() {
    let findings = judged(&[]);
    let other: Vec<_> = findings
        .iter()
        .filter(|f| !matches!(f.verdict.name(), "ok" | "absent"))
        .map(|f| (f.advice.id, &f.verdict))
        .collect();
    assert!(other.is_empty(), "{other:?}");
    // Without a firewall and without a quota.
    for id in ["conntrack", "quota"] {
        assert_eq!(of(&findings, id).verdict.name(), "absent", "{id}");
    }
    assert!(findings.len() >= 15);
}

#[test]
fn each_fault_planted_in_a_host_is_found_with_a_command_that_mends_it() {
    for (path, text, id, command) in [
        (
            "proc/sys/net/core/somaxconn",
            "128\n",
            "listen-queue",
            "sysctl -w 'net.core.somaxconn=4096'",
        ),
        (
            "proc/sys/net/ipv4/tcp_syncookies",
            "0\n",
            "syn-cookies",
            "tcp_syncookies=1",
        ),
        (
            "proc/sys/net/ipv4/tcp_abort_on_overflow",
            "1\n",
            "abort-on-overflow",
            "tcp_abort_on_overflow=0",
        ),
        (
            "proc/sys/net/ipv4/tcp_rmem",
            "4096 87380 131072\n",
            "receive-window",
            "net.ipv4.tcp_rmem=4096 87380 6291456",
        ),
        (
            "proc/sys/net/ipv4/tcp_wmem",
            "4096 16384 65536\n",
            "send-buffer",
            "net.ipv4.tcp_wmem=4096 16384 4194304",
        ),
        ("proc/sys/fs/nr_open", "1024\n", "nr-open", "fs.nr_open=1048576"),
        (
            "proc/sys/kernel/io_uring_disabled",
            "2\n",
            "io-uring",
            "io_uring_disabled=0",
        ),
        (
            "proc/sys/kernel/io_uring_disabled",
            "1\n",
            "io-uring",
            "io_uring_group=$(id -g postern), with the user",
        ),
        (
            "proc/self/limits",
            "Max open files 64 4096 files\nMax locked memory 99999999 9 b\n",
            "open-files",
            "LimitNOFILE=131072",
        ),
        (
            "proc/self/limits",
            "Max open files 1 unlimited files\nMax locked memory 65536 65536 bytes\n",
            "locked-memory",
            "LimitMEMLOCK",
        ),
        (
            "proc/self/net/softnet_stat",
            "0a 00000000\n0b 0000001f\n",
            "softnet",
            "irq-affinity.sh",
        ),
        (
            "proc/self/net/sockstat",
            "TCP: inuse 5 orphan 0 tw 4 alloc 9 mem 190\n",
            "socket-memory",
            "tcp_mem=200 400 600",
        ),
        ("proc/self/environ", "HOME=/\0", "huge-pages", "MIMALLOC_ALLOW_THP=0"),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet\n",
            "clock-source",
            "available_clocksource",
        ),
        (
            "sys/fs/cgroup/system.slice/cpu.max",
            "150000 100000\n",
            "quota",
            "shards = 1",
        ),
        (
            "proc/self/mountinfo",
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw,nobarrier\n",
            "file-system",
            "barrier=1 /",
        ),
        (
            "proc/self/mountinfo",
            "22 1 0:5 / / rw - tmpfs tmpfs rw\n",
            "file-system",
            "data_dir",
        ),
    ] {
        let findings = judged(&[(path, text)]);
        assert_eq!(changes(&findings), [id], "{path}: {text}");
        let Verdict::Change { command: said, .. } = &of(&findings, id).verdict else {
            panic!("{id}");
        };
        assert!(said.contains(command), "{id}: {said}");
    }
}

#[test]
fn a_full_table_of_tracked_connections_is_found_and_one_that_nobody_fills_is_not() {
    let with = |count: &str, most: &str| {
        judged(&[
            ("proc/sys/net/netfilter/nf_conntrack_count", count),
            ("proc/sys/net/netfilter/nf_conntrack_max", most),
        ])
    };
    assert_eq!(changes(&with("70000", "80000")), ["conntrack"]);
    assert_eq!(changes(&with("10", "4096")), ["conntrack"]);
    assert_eq!(changes(&with("10", "262144")), [""; 0]);
    assert_eq!(changes(&with("0", "4096")), [""; 0]);
}

#[test]
fn a_packet_dropped_long_ago_is_no_reason_to_change_anything() {
    let findings = judged(&[("proc/self/net/softnet_stat", "00ffffff 00000001\n")]);
    assert_eq!(of(&findings, "softnet").verdict.name(), "note");
}

#[test]
fn whoever_is_exempt_has_nothing_to_change() {
    for (group, expected) in [("77\n", &[][..]), ("1007\n", &[]), ("1000\n", &["io-uring"])] {
        let limited = ("proc/sys/kernel/io_uring_disabled", "1\n");
        let findings = judged(&[limited, ("proc/sys/kernel/io_uring_group", group)]);
        assert_eq!(changes(&findings), expected, "{group}");
    }
    let root = "Groups:\t\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n";
    let findings = judged(&[
        ("proc/self/status", root),
        ("proc/sys/kernel/io_uring_disabled", "1\n"),
        (
            "proc/self/limits",
            "Max open files 1 unlimited files\nMax locked memory 0 0 bytes\n",
        ),
    ]);
    assert_eq!(changes(&findings), [""; 0]);
}

#[test]
fn a_slow_device_is_to_change_and_one_that_is_too_fast_is_to_be_looked_at() {
    let with = |p50: u64, p99: u64| {
        let mut tried = tried();
        let (p50, p99) = (Duration::from_micros(p50), Duration::from_micros(p99));
        tried.syncs = Ok(Syncs { p50, p99, count: 30 });
        judged_with(&[], Whose::Shell, &needs(), tried)
    };
    assert_eq!(changes(&with(9_000, 12_000)), ["sync"]);
    assert_eq!(changes(&with(900, 80_000)), ["sync"]);
    let fast = with(20, 40);
    assert!(matches!(&of(&fast, "sync").verdict, Verdict::Note { found, mind }
        if found.contains("write back") && mind.contains("it lies")));
}

#[test]
fn more_shards_than_cores_and_a_long_drain_are_seen_in_the_configuration() {
    let mut needs = needs();
    needs.shards = 3;
    assert_eq!(changes(&judged_with(&[], Whose::Shell, &needs, tried())), ["shards"]);
    needs.shards = 2;
    needs.drain = Duration::from_secs(120);
    let findings = judged_with(&[], Whose::Shell, &needs, tried());
    assert!(
        matches!(&of(&findings, "drain").verdict, Verdict::Note { mind, .. } if mind.contains("TimeoutStopSec=135s"))
    );
}

#[test]
fn a_ring_that_cannot_be_made_under_a_filter_names_the_profile() {
    let refused = || Tried {
        ring: Err(Missing::Unreadable("Operation not permitted".into())),
        ..tried()
    };
    let filtered = ("proc/self/status", "Groups:\t\nCapEff:\t0\nSeccomp:\t2\n");
    let command =
        |changed: &[(&str, &str)]| match &of(&judged_with(changed, Whose::Shell, &needs(), refused()), "seccomp")
            .verdict
        {
            Verdict::Change { command, .. } => command.clone(),
            other => panic!("{other:?}"),
        };
    assert!(command(&[filtered]).contains("seccomp-docker.json"));
    assert!(command(&[]).contains("uname -r"));
}

#[test]
fn the_counters_of_a_row_are_shown_as_they_are_and_only_our_ports_are_looked_at() {
    let findings = judged(&[]);
    let counters = &of(&findings, "listen-queue").counters;
    assert_eq!(
        *counters,
        [
            ("TcpExtListenOverflows", 2),
            ("TcpExtListenDrops", 3),
            ("waiting now", 5)
        ]
    );
    assert_eq!(of(&findings, "softnet").counters, [("TcpRetransSegs", 9)]);
}

#[test]
fn what_is_not_there_is_no_fault_and_what_cannot_be_read_is_said() {
    let findings = judged(&[
        ("proc/sys/kernel/io_uring_disabled", ""),
        ("sys/kernel/mm/transparent_hugepage/enabled", ""),
        ("proc/sys/net/core/somaxconn", "many\n"),
        ("proc/self/limits", "Max open files x\n"),
    ]);
    assert_eq!(changes(&findings), [""; 0]);
    for (id, name) in [
        ("io-uring", "absent"),
        ("huge-pages", "absent"),
        ("listen-queue", "unread"),
        ("open-files", "unread"),
        ("locked-memory", "absent"),
    ] {
        assert_eq!(of(&findings, id).verdict.name(), name, "{id}");
    }
}

#[test]
fn an_edge_with_a_network_of_its_own_is_not_judged_by_ours() {
    let root = tempfile::tempdir().unwrap();
    for (who, network) in [("self", "net:[1]"), ("9", "net:[2]")] {
        let folder = root.path().join("proc").join(who).join("ns");
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(Path::new(network), folder.join("net")).unwrap();
    }
    let facts = Host::new(root.path(), Whose::Edge(9)).read(&needs(), tried());
    let said = format!("{:?}", facts.sysctls["net.core.somaxconn"]);
    assert!(said.contains("nsenter -t 9 -n"), "{said}");
    assert!(!format!("{:?}", facts.sysctls["fs.nr_open"]).contains("nsenter"));
    let said = format!("{:?}", facts.tracked);
    assert!(said.contains("nsenter -t 9 -n"), "{said}");
}

#[test]
fn a_running_edge_has_its_rings_whatever_holds_for_this_program_and_names_its_own_group() {
    let refused = Tried {
        ring: Err(Missing::Unreadable("Operation not permitted".into())),
        ..tried()
    };
    let edge: Vec<_> = ["status", "limits", "environ", "cgroup"]
        .map(|name| (format!("proc/9/{name}"), text_of(&format!("proc/self/{name}"))))
        .into_iter()
        .collect();
    let mut changed: Vec<_> = edge.iter().map(|(path, text)| (&path[..], *text)).collect();
    changed.push(("proc/sys/kernel/io_uring_disabled", "1\n"));
    let findings = judged_with(&changed, Whose::Edge(9), &needs(), refused);
    assert_eq!(changes(&findings), ["io-uring"]);
    assert_eq!(of(&findings, "seccomp").verdict.name(), "ok");
    let Verdict::Change { command, .. } = &of(&findings, "io-uring").verdict else {
        panic!();
    };
    assert_eq!(command, "sysctl -w kernel.io_uring_group=1007");
}

fn text_of(path: &str) -> &'static str {
    GOOD.iter().find(|(good, _)| *good == path).unwrap().1
}

#[test]
fn where_memory_is_short_the_kernels_own_buffers_will_do_and_smaller_ones_will_not() {
    // 256 MiB less what the kernel keeps: its own bound is near 2 MiB.
    let with = |bound: &str| {
        let memory = ("proc/meminfo", "MemTotal:         250000 kB\n");
        let rmem = format!("4096 131072 {bound}\n");
        judged(&[
            memory,
            ("proc/sys/net/ipv4/tcp_rmem", &rmem),
            ("proc/sys/net/ipv4/tcp_wmem", &rmem),
        ])
    };
    assert_eq!(changes(&with("1960000")), [""; 0]);
    let findings = with("131072");
    assert_eq!(changes(&findings), ["receive-window", "send-buffer"]);
    let Verdict::Change { command, .. } = &of(&findings, "receive-window").verdict else {
        panic!();
    };
    assert_eq!(command, "sysctl -w 'net.ipv4.tcp_rmem=4096 131072 2000000'");
}

#[test]
fn file_systems_of_another_host_or_program_are_told_from_those_of_this_one() {
    for (kind, name) in [
        ("fuse", "note"),
        ("fuse.sshfs", "note"),
        ("ceph", "note"),
        ("virtiofs", "note"),
        ("nfs4", "note"),
        ("fuseblk", "ok"),
        ("btrfs", "ok"),
    ] {
        let mounts = format!("22 1 0:5 / / rw - {kind} x rw\n");
        let findings = judged(&[("proc/self/mountinfo", &mounts)]);
        assert_eq!(of(&findings, "file-system").verdict.name(), name, "{kind}");
    }
}

#[test]
fn huge_pages_that_the_kernel_never_gives_and_words_of_the_allocator_in_any_case_are_known() {
    let environ = "proc/self/environ";
    for words in ["MIMALLOC_ALLOW_THP=OFF\0", "A=1\0mimalloc_allow_thp=False\0"] {
        assert_eq!(changes(&judged(&[(environ, words)])), [""; 0], "{words}");
    }
    for words in ["MIMALLOC_ALLOW_THP=1\0", "MIMALLOC_ALLOW_THP=\0", "X=0\0"] {
        assert_eq!(changes(&judged(&[(environ, words)])), ["huge-pages"], "{words}");
    }
    let enabled = "sys/kernel/mm/transparent_hugepage/enabled";
    let findings = judged(&[(environ, ""), (enabled, "always madvise [never]\n")]);
    assert_eq!(of(&findings, "huge-pages").verdict.name(), "ok");
}
