//! What must be true of the host before shards start, and what to say where it is not.
//!
//! Promises: every sentence names the cause and the command that mends it. Lives on the main thread.

use std::io;
use std::net::SocketAddr;

use rustix::process::{Gid, Pid, Resource, Rlimit, getrlimit, setrlimit};

/// Octets that glommio's ring of one shard wants to lock (it refuses to start below).
const MEMLOCK_PER_SHARD: u64 = crate::host::advice::LOCKED_PER_SHARD;

/// Lifts the soft limit of open files to the hard one: a connection is a file.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let lifted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, lifted) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Open files that so many connections want, with everything that is open beside them: as many fit into it, by
/// [`most_connections`].
pub fn files_for(connections: u64, shards: usize, sockets: usize) -> u64 {
    let (shards, sockets) = (shards as u64, sockets as u64);
    let own = FILES_OF_THE_PROCESS + shards * (FILES_PER_SHARD + FILES_PER_SOCKET * sockets);
    connections.saturating_add(own).saturating_add(FILES_OF_WORKERS)
}

/// Descriptors of one shard beside connections: three rings and an event.
const FILES_PER_SHARD: u64 = 4;
/// Descriptors of one listening socket: glommio's, ours, and that of the control thread.
const FILES_PER_SOCKET: u64 = 3;
/// Descriptors of everything else but the file workers: standard streams, the control thread, the admin pages.
const FILES_OF_THE_PROCESS: u64 = 24;
/// What the file workers have open at most; where there are few, they get a quarter.
const FILES_OF_WORKERS: u64 = 300;

/// Connections that fit into so many open files, with `sockets` listening sockets on each shard. What else the process
/// opens (the files of a message) is kept free, so that running out refuses newcomers instead of breaking sessions.
///
/// # Errors
///
/// The sentence for the operator, where there is room for none.
pub fn most_connections(files: u64, shards: usize, sockets: usize) -> Result<u64, String> {
    let (shards, sockets) = (shards as u64, sockets as u64);
    let own = FILES_OF_THE_PROCESS + shards * (FILES_PER_SHARD + FILES_PER_SOCKET * sockets);
    let workers = FILES_OF_WORKERS.min(files / 4);
    match files.saturating_sub(own + workers) {
        0 => Err(format!(
            "cannot serve with {files} open files, {} are wanted before the first connection: raise LimitNOFILE in the \
             unit, or ulimit -n 131072",
            own + workers
        )),
        room => Ok(room),
    }
}

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    cores_of(None).unwrap_or_else(|_| vec![0])
}

/// The cores that a process may run on, this one by default.
///
/// # Errors
///
/// There is no such process.
pub fn cores_of(process: Option<Pid>) -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(process)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect())
}

/// Whether io_uring is switched off on this host. Better asked before: glommio ends the process where it finds out.
///
/// # Errors
///
/// The sentence for the operator.
pub fn io_uring_is_on() -> Result<(), String> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match setting.trim() {
        "2" => Err("io_uring is switched off on this host; switch it on: sysctl -w kernel.io_uring_disabled=0".into()),
        "1" if !is_exempt() => Err(
            "io_uring is switched off for unprivileged users; switch it on: sysctl -w kernel.io_uring_disabled=0, or run \
             with CAP_SYS_ADMIN or in the group of kernel.io_uring_group"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// Whether the kernel lets this process have rings though unprivileged users get none.
fn is_exempt() -> bool {
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    let group = std::fs::read_to_string("/proc/sys/kernel/io_uring_group").unwrap_or_default();
    let more = rustix::process::getgroups().unwrap_or_default();
    capable || is_one_of(&group, more.into_iter().chain([rustix::process::getegid()]))
}

/// Whether one of these groups is the one that a setting names; -1 is nobody's.
fn is_one_of(setting: &str, own: impl IntoIterator<Item = Gid>) -> bool {
    let named = setting.trim().parse::<u32>();
    own.into_iter().any(|own| named == Ok(own.as_raw()))
}

/// Why a shard could not start, as far as can be told from the outside.
pub fn shard_failed(reason: &str, shards: usize) -> String {
    let locked = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    let wanted = MEMLOCK_PER_SHARD.saturating_mul(shards as u64);
    let lower = reason.to_ascii_lowercase();
    if lower.contains("memlock")
        || lower.contains("cannot allocate memory")
        || (locked < wanted && !lower.contains("permit") && !lower.contains("probe"))
    {
        return format!(
            "cannot start a shard: the limit of locked memory is {} KiB and {shards} shards want {} KiB: raise it with \
             LimitMEMLOCK=64M in the unit, --ulimit memlock=67108864 for a container, or ulimit -l 65536 ({reason})",
            locked >> 10,
            wanted >> 10
        );
    }
    // glommio asks the kernel for what it can do and panics where it gets no answer.
    let unanswered = lower.contains("probe") && seccomp_is_on();
    let reason = if unanswered {
        "the kernel was asked what it supports and did not answer"
    } else {
        reason
    };
    if unanswered || lower.contains("not permitted") || lower.contains("permission") {
        return format!(
            "cannot start a shard: io_uring is refused to this process, as the default seccomp profile of containers does: \
             allow io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=PROFILE) \
             ({reason})"
        );
    }
    if lower.contains("too many open files") {
        return "cannot start a shard: no file descriptors left: raise LimitNOFILE in the unit, or ulimit -n 131072"
            .into();
    }
    format!("cannot start a shard: {reason}; io_uring needs Linux 5.8 or later: uname -r")
}

/// Whether a filter of system calls holds for this process, as in containers.
fn seccomp_is_on() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter_map(|line| line.strip_prefix("Seccomp:"))
        .any(|mode| mode.trim() != "0")
}

/// Why an address cannot be listened on.
pub fn cannot_listen(binding: &str, address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program listens there; which one: ss -ltnp 'sport = :{port}'")
        }
        io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need a right that this user lacks: AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or \
             sysctl -w net.ipv4.ip_unprivileged_port_start={port}"
        ),
        io::ErrorKind::AddrNotAvailable => "this host does not have that address; those it has: ip address".into(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            "IPv6 is switched off on this host; take the address out, or sysctl -w net.ipv6.conf.all.disable_ipv6=0"
                .into()
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "no file descriptors left: raise LimitNOFILE in the unit, or ulimit -n 131072".into()
        }
        _ => error.to_string(),
    };
    format!("cannot listen on {address} (binding {binding}): {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_names_the_address_and_the_command_that_shows_by_whom() {
        let text = cannot_listen("mx", "127.0.0.1:25".parse().unwrap(), &io::ErrorKind::AddrInUse.into());
        assert!(
            text.contains("127.0.0.1:25") && text.contains("binding mx") && text.contains("ss -ltnp 'sport = :25'")
        );
    }

    #[test]
    fn a_shard_that_is_refused_io_uring_names_seccomp_and_one_out_of_memory_names_memlock() {
        assert!(shard_failed("Operation not permitted (os error 1)", 1).contains("seccomp"));
        assert!(shard_failed("Cannot allocate memory (os error 12)", 4).contains("LimitMEMLOCK=64M"));
    }

    #[test]
    fn the_group_that_may_have_rings_is_found_among_those_of_the_process() {
        let own = [5, 77].map(Gid::from_raw);
        assert!(is_one_of("77\n", own) && is_one_of("5\n", own));
        assert!(!is_one_of("7\n", own) && !is_one_of("-1\n", own) && !is_one_of("", own));
    }

    #[test]
    fn connections_leave_room_for_the_files_of_messages() {
        assert!(most_connections(50, 2, 1).is_err_and(|text| text.contains("LimitNOFILE")));
        assert_eq!(most_connections(64, 2, 1), Ok(64 - 24 - 14 - 16));
        assert_eq!(most_connections(1024, 2, 2), Ok(1024 - 24 - 20 - 256));
        assert!(most_connections(524_288, 64, 10).is_ok_and(|room| room > 520_000));
    }

    #[test]
    fn so_many_files_hold_so_many_connections() {
        for (connections, shards, sockets) in [(5000, 2, 2), (20_000, 64, 10), (1200, 1, 1)] {
            let files = files_for(connections, shards, sockets);
            assert!(most_connections(files, shards, sockets).is_ok_and(|room| room >= connections));
        }
    }

    #[test]
    fn there_is_a_core_to_run_on() {
        assert!(!cores().is_empty());
    }
}
