//! Rows for an edge that does not start.

use super::{Advice, Check, Wanted};

pub(super) const ROWS: &[Advice] = &[
    Advice {
        id: "io-uring",
        symptom: "`io_uring is switched off on this host`.",
        see: "`sysctl kernel.io_uring_disabled` (1: privileged processes and one group only, 2: nobody; Linux 6.6 and later).",
        set: "`sysctl -w kernel.io_uring_disabled=0`, or 1 with the service's group in `kernel.io_uring_group` (one that stays: \
              `SupplementaryGroups=` in the unit, since that of a `DynamicUser` is another each time).",
        why: "postern has no other way to the disk and the network",
        cost: "Every process on the host may use io_uring, which has been the way into the kernel for a number of exploits. The \
               group limits it to postern.",
        measured: "Could not be measured here: it holds for a whole machine, and others used this one.",
        source: "kernel, Documentation/admin-guide/sysctl/kernel.rst.",
        counters: &[],
        check: Check::IoUring,
    },
    Advice {
        id: "seccomp",
        symptom: "`io_uring is refused to this process` in a container. The default seccomp profiles of Docker (since 25.0) and \
                  containerd leave io_uring out.",
        see: "The message; `grep Seccomp /proc/PID/status` shows 2 in a filtered container.",
        set: "`docker run --security-opt seccomp=seccomp-docker.json`, with [seccomp-docker.json](seccomp-docker.json): what postern \
              and the start of a container need, and nothing else. An image that needs more takes Docker's own profile (moby, \
              `profiles/seccomp/default.json`) with the three calls: `jq '.syscalls += [{\"names\": [\"io_uring_setup\", \
              \"io_uring_enter\", \"io_uring_register\"], \"action\": \"SCMP_ACT_ALLOW\"}]' default.json`.",
        why: "a filter of system calls leaves io_uring out",
        cost: "As above, for this container. `seccomp=unconfined` costs more than is needed.",
        measured: "[measure/seccomp.sh](measure/seccomp.sh): under the profile, loaded without Docker (which could not run \
                   here), 500 of 500 messages are taken for a next hop and for a Maildir; without the three calls in it, the \
                   message above.",
        source: "moby pull request 46762, containerd pull request 9320.",
        counters: &[],
        check: Check::Ring,
    },
    Advice {
        id: "locked-memory",
        symptom: "`the limit of locked memory is ...`. Each shard wants 512 KiB that may be locked. The limit holds for all \
                  processes of a user together; root is exempt.",
        see: "`grep 'Max locked' /proc/PID/limits`, or `ulimit -l` in the shell that starts it.",
        set: "`LimitMEMLOCK=64M` in the unit, `--ulimit memlock=67108864` for a container, `ulimit -l 65536` in a shell.",
        why: "a ring is locked memory, and none starts without it",
        cost: "None until it is used; it is a permission, not a reservation. A restart right after a stop may find the old rings \
               not yet given back; `RestartSec=2s` waits for that.",
        measured: "[measure/locked_memory.sh](measure/locked_memory.sh), a user that is not root: with 256 KiB no shard starts, \
                   with 512 KiB two do and eight do not, with 1 MiB eight do.",
        source: "io_uring_setup(2), glommio's check at start.",
        counters: &[],
        check: Check::LockedMemory,
    },
    Advice {
        id: "low-ports",
        symptom: "`ports below 1024 need a right that this user lacks`.",
        see: "`sysctl net.ipv4.ip_unprivileged_port_start`.",
        set: "`AmbientCapabilities=CAP_NET_BIND_SERVICE` in the unit.",
        why: "port 25 is for who has the right to it",
        cost: "The service may take any low port. Lowering the sysctl instead lets every user of the host do so.",
        measured: "Nothing to measure: it starts or it does not.",
        source: "capabilities(7), ip(7).",
        counters: &[],
        check: Check::Guide,
    },
    Advice {
        id: "port-taken",
        symptom: "`another program listens there`. Most distributions start a mail server of their own.",
        see: "`ss -ltnp 'sport = :25'`.",
        set: "Stop and disable that one.",
        why: "two servers on one port would share the mail between them",
        cost: "Local programs that send mail by it want another way.",
        measured: "Nothing to measure: it starts or it does not.",
        source: "socket(7), SO_REUSEPORT.",
        counters: &[],
        check: Check::Guide,
    },
    Advice {
        id: "nr-open",
        symptom: "systemd or a shell refuses the limit of open files itself.",
        see: "`sysctl fs.nr_open`.",
        set: "`sysctl -w fs.nr_open=1048576`, the kernel's default, where it is less. It is in no file here: systemd sets far more \
              when it starts, which a file would take back.",
        why: "no process may have a higher limit of open files than this",
        cost: "None by itself.",
        measured: "Could not be measured here: it holds for a whole machine, and the right to raise limits is missing.",
        source: "kernel, Documentation/admin-guide/sysctl/fs.rst.",
        counters: &[],
        check: Check::Sysctl("fs.nr_open", Wanted::AtLeast(super::NR_OPEN)),
    },
];
