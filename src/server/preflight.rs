//! What must be true of the host before shards start, and what to say where it is not.
//!
//! Promises: every sentence names the cause and the command that mends it. Lives on the main thread.

use std::io;
use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Octets that glommio's ring of one shard wants to lock (it refuses to start below).
const MEMLOCK_PER_SHARD: u64 = 512 << 10;

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

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return vec![0];
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

/// Whether io_uring is switched off on this host. Better asked before: glommio ends the process where it finds out.
///
/// # Errors
///
/// The sentence for the operator.
pub fn io_uring_is_on() -> Result<(), String> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let root = rustix::process::geteuid().is_root();
    match setting.trim() {
        "2" => Err("io_uring is switched off on this host; switch it on: sysctl -w kernel.io_uring_disabled=0".into()),
        "1" if !root => Err(
            "io_uring is switched off for unprivileged users; switch it on: sysctl -w kernel.io_uring_disabled=0, or run \
             with CAP_SYS_ADMIN or in the group of kernel.io_uring_group"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// Why a shard could not start, as far as can be told from the outside.
pub fn shard_failed(reason: &str, shards: usize) -> String {
    let locked = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    let wanted = MEMLOCK_PER_SHARD.saturating_mul(shards as u64);
    let lower = reason.to_ascii_lowercase();
    if lower.contains("memlock")
        || lower.contains("cannot allocate memory")
        || (locked < wanted && !lower.contains("permit"))
    {
        return format!(
            "cannot start a shard: the limit of locked memory is {} KiB and {shards} shards want {} KiB: raise it with \
             LimitMEMLOCK=64M in the unit, --ulimit memlock=67108864 for a container, or ulimit -l 65536 ({reason})",
            locked >> 10,
            wanted >> 10
        );
    }
    if lower.contains("not permitted") || lower.contains("permission") {
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
    fn there_is_a_core_to_run_on() {
        assert!(!cores().is_empty());
    }
}
