//! Rows for the disk: replies that are late because something has to be durable first, and mail that might not be.

use super::{Advice, Check};

pub(super) const ROWS: &[Advice] = &[
    Advice {
        id: "tarpit",
        symptom: "Every error reply takes five seconds. That is the tarpit; test clients notice it first.",
        see: "`tarpit` in `postern check`.",
        set: "`tarpit = \"0s\"` in a binding for clients that are known.",
        why: "it is meant",
        cost: "Who guesses addresses or passwords guesses faster.",
        measured: "Nothing to measure: it waits as long as it is told.",
        source: "[MS-OXSMTP] 3.2.1.",
        counters: &[],
        check: Check::Guide,
    },
    Advice {
        id: "sync",
        symptom: "The final reply takes long when a message has to be durable first: its hop has not taken it in time, or \
                  `acknowledgement_delay` is `0s`.",
        see: "`delivering` in the message line, `postern_delivery_duration_seconds`; `postern tune` times 30 syncs in `data_dir`.",
        set: "`data_dir` on a device whose cache survives a power cut.",
        why: "the reply waits for a sync, and all messages that come meanwhile share the next one",
        cost: "Such a device.",
        measured: "[measure/spool.sh](measure/spool.sh), durable first, 50 connections, one shard: 7000 messages/s on ext4 on the virtual disk, \
                   final reply p50 5.4 and p99 40 ms; 9500 (1.35), 3.7 and 10.6 ms in memory, where a sync does nothing: so much \
                   is the most that a better device could bring to this one.",
        source: "fdatasync(2).",
        counters: &[],
        check: Check::Sync,
    },
    Advice {
        id: "file-system",
        symptom: "Mail that was acknowledged is gone after a power cut or a restart of the host.",
        see: "`findmnt -T DATA_DIR`; `cat /sys/block/DEVICE/queue/write_cache`.",
        set: "A file system on a disk, mounted without `barrier=0` or `nobarrier`; in a container a volume.",
        why: "a sync that the file system does not hand on keeps nothing",
        cost: "Nothing that could be measured: see below.",
        measured: "[measure/spool.sh](measure/spool.sh), against ext4 as it is mounted by itself (relatime): `noatime` 1.02 of the messages/s, \
                   `barrier=0` 0.91, `data=journal` 0.88, all within the noise (final reply p99 40, 47, 36 and 43 ms). So there is \
                   nothing to be had here from leaving barriers out. A power cut could not be measured here.",
        source: "ext4(5); kernel, Documentation/block/writeback_cache_control.rst.",
        counters: &[],
        check: Check::FileSystem,
    },
    Advice {
        id: "writeback",
        symptom: "Syncs take long whenever another program writes much to the same disk.",
        see: "`grep -E 'Dirty|Writeback' /proc/meminfo` is large; `iostat -x` shows the device full.",
        set: "`data_dir` on a device that no heavy writer shares. Leave `vm.dirty_bytes` and `vm.dirty_ratio` as they are: beyond \
              them the kernel makes whoever writes wait for the disk, the spool as well.",
        why: "what others have written and not synced is in the way of a sync",
        cost: "A device.",
        measured: "[measure/spool.sh](measure/spool.sh), beside a program that writes 256 MB over and over and never syncs: with the kernel's \
                   default 4800 messages/s (4400 to 5100), final reply p99 53 ms (50 to 87); with `vm.dirty_bytes` of 256 MiB and a \
                   background of 64 MiB 84 (80 to 89) and 1 s, since now what the other program only writes over goes to the disk \
                   each time, and all writers wait for it.",
        source: "kernel, Documentation/admin-guide/sysctl/vm.rst.",
        counters: &[],
        check: Check::Guide,
    },
    Advice {
        id: "preemption",
        symptom: "Syncs take 4 or 8 ms under load, on a device that does them in a tenth of that.",
        see: "`uname -v`; `cat /sys/kernel/debug/sched/preempt`; `grep CONFIG_HZ= /boot/config-$(uname -r)`. A sync goes through \
              threads of the kernel (io-wq, the journal's), each of which waits for a tick where nothing preempts: 4 ms at 250 Hz.",
        set: "A core more than there are shards (`shards` one less, or `AllowedCPUs=`); `preempt=lazy` or `preempt=full` on the \
              kernel's command line, or a kernel with 1000 Hz.",
        why: "a thread of the kernel that is woken waits for a tick",
        cost: "A core, which kept connections would have used; some throughput for switching more often.",
        measured: "[measure/spare_core.sh](measure/spare_core.sh), durable first on two cores: one shard and a core to spare against \
                   two shards 0.96 of the messages/s (within the noise), final reply p99 32 ms (27 to 49) in place of 47 (39 to 53); \
                   all of it on one core 0.88, 38 ms. Preemption and Hz could not be measured here: the guest may not touch \
                   sched/preempt, and has one kernel.",
        source: "kernel, Documentation/admin-guide/kernel-parameters.txt, `preempt=`.",
        counters: &[],
        check: Check::Preemption,
    },
];
