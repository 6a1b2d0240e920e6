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
        measured: "MEASURED-SYNC",
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
        cost: "MEASURED-MOUNT-COST",
        measured: "MEASURED-MOUNT",
        source: "ext4(5); kernel, Documentation/block/writeback_cache_control.rst.",
        counters: &[],
        check: Check::FileSystem,
    },
    Advice {
        id: "writeback",
        symptom: "Syncs take long whenever another program writes much to the same disk.",
        see: "`grep -E 'Dirty|Writeback' /proc/meminfo` is large; `iostat -x` shows the device full.",
        set: "MEASURED-DIRTY-SET",
        why: "what others have written and not synced is in the way of a sync",
        cost: "MEASURED-DIRTY-COST",
        measured: "MEASURED-DIRTY",
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
        cost: "A core; some throughput for switching more often.",
        measured: "MEASURED-PREEMPT",
        source: "kernel, Documentation/admin-guide/kernel-parameters.txt, `preempt=`.",
        counters: &[],
        check: Check::Preemption,
    },
];
