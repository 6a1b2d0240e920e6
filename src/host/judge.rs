//! Holding what was found against the advice.
//!
//! Promises: pure. What is better than advised is as advised; what the host does not have is nothing to change; what could
//! not be read is told as such.

use super::advice::{Advice, BACKLOG, Check, LOCKED_MEMORY, LOCKED_PER_SHARD, OPEN_FILES, Wanted, rows};
use super::facts::{Facts, FileSystem, Found, Missing, Needs, Whose};

mod verdict;

pub use verdict::{Finding, Verdict};
use verdict::{as_advised, change, note};

/// Drain time that the shipped unit leaves: `TimeoutStopSec` less what postern takes for last replies.
const DRAIN_OF_THE_UNIT_S: u64 = 40;
/// Packets among which one may be dropped: fewer, and connections feel it.
const PACKETS_PER_DROP: u64 = 100_000;
/// Half of the syncs should take at most so long, in microseconds: beyond it a disk turns or a network is in between.
const SYNC_P50_MOST_US: u128 = 5_000;
/// One in a hundred may take so long.
const SYNC_P99_MOST_US: u128 = 50_000;
/// A device that forgets nothing answers no sooner than this, unless it has a cache that survives a power cut.
const SYNC_HONEST_US: u128 = 50;

/// Judges every row of which a program can tell something, in the order of the guide.
pub fn judge(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    let verdict = |row: &'static Advice| {
        let verdict = match of_row(row, facts, needs) {
            Ok(verdict) => verdict?,
            Err(Missing::Absent(why)) => Verdict::NotHere(why),
            Err(Missing::Unreadable(why)) => Verdict::Unread(why),
        };
        Some(Finding {
            advice: row,
            verdict,
            counters: counters(row, facts),
        })
    };
    rows().filter_map(verdict).collect()
}

fn counters(row: &'static Advice, facts: &Facts) -> Vec<(&'static str, u64)> {
    let mut all: Vec<_> = row
        .counters
        .iter()
        .filter_map(|name| Some((*name, *facts.counters.get(*name)?)))
        .collect();
    if row.check == Check::Sysctl("net.core.somaxconn", Wanted::AtLeast(BACKLOG)) {
        all.extend(facts.waiting.iter().map(|waiting| ("waiting now", *waiting)));
    }
    all
}

fn of_row(row: &Advice, facts: &Facts, needs: &Needs) -> Found<Option<Verdict>> {
    let verdict = match row.check {
        Check::Guide => return Ok(None),
        Check::Sysctl(key, wanted) => sysctl(key, wanted, facts)?,
        Check::IoUring => io_uring(facts)?,
        Check::Ring => ring(facts)?,
        Check::LockedMemory => locked_memory(facts, needs)?,
        Check::OpenFiles => open_files(facts, needs)?,
        Check::Conntrack => conntrack(facts, needs)?,
        Check::Softnet => softnet(facts)?,
        Check::SocketMemory => socket_memory(facts)?,
        Check::Shards => shards(facts, needs),
        Check::Quota => quota(facts, needs)?,
        Check::HugePages => huge_pages(facts)?,
        Check::ClockSource => clock(facts)?,
        Check::FileSystem => file_system(facts.file_system.as_ref().map_err(Clone::clone)?),
        Check::Sync => sync(facts)?,
        Check::Preemption => preemption(facts)?,
        Check::Drain => drain(needs),
    };
    Ok(Some(verdict))
}

fn sysctl(key: &str, wanted: Wanted, facts: &Facts) -> Found<Verdict> {
    let text = setting(key, facts)?;
    let numbers: Vec<&str> = text.split(' ').collect();
    let last = numbers.last().and_then(|word| word.parse().ok());
    let value: u64 = last.ok_or_else(|| Missing::Unreadable(format!("{key} is {text:?}, which is no number")))?;
    let memory = *facts.memory.as_ref().unwrap_or(&u64::MAX);
    // The kernel's own sum leaves out what was reserved when it started: some hundredths.
    if wanted.takes(value) || wanted.with_memory(memory / 8 * 7).takes(value) {
        return Ok(as_advised(format!("{key} is {text}")));
    }
    let wanted = wanted.with_memory(memory);
    // Of several numbers all but the last stay.
    let mut all = numbers;
    let new = wanted.value().to_string();
    all.pop();
    all.push(&new);
    let assignment = format!("{key}={}", all.join(" "));
    let (found, wanted) = match all.len() {
        1 => (format!("{key} is {text}"), wanted.to_string()),
        _ => (format!("{key} is {text}"), format!("{wanted} as the last number")),
    };
    Ok(change(found, wanted, format!("sysctl -w '{assignment}'")))
}

fn setting<'f>(key: &str, facts: &'f Facts) -> Found<&'f str> {
    match facts.sysctls.get(key) {
        Some(Ok(text)) => Ok(text),
        Some(Err(missing)) => Err(missing.clone()),
        None => Err(Missing::Absent(format!("{key} was not asked for"))),
    }
}

fn io_uring(facts: &Facts) -> Found<Verdict> {
    let text = setting("kernel.io_uring_disabled", facts)?;
    let found = format!("kernel.io_uring_disabled is {text}");
    let privileged = *facts.is_privileged.as_ref().unwrap_or(&false);
    let (wanted, command) = match text {
        "0" => return Ok(as_advised(found)),
        "1" if privileged || facts.in_ring_group => {
            return Ok(as_advised(format!("{found}, and this process is exempt")));
        }
        "1" => {
            // This shell may be root's.
            let (group, mind) = match (facts.whose, &facts.group) {
                (Whose::Edge(_), Ok(group)) => (group.to_string(), ""),
                _ => (
                    "$(id -g postern)".to_owned(),
                    ", with the user that runs the edge in place of postern",
                ),
            };
            (
                "0, or the group of the edge in kernel.io_uring_group",
                format!("sysctl -w kernel.io_uring_group={group}{mind}"),
            )
        }
        _ => ("0", "sysctl -w kernel.io_uring_disabled=0".to_owned()),
    };
    Ok(change(found, wanted, command))
}

fn ring(facts: &Facts) -> Found<Verdict> {
    // What holds this program back, such as a filter of its own, does not hold the edge back.
    if let Whose::Edge(pid) = facts.whose {
        return Ok(as_advised(format!(
            "the edge (process {pid}) runs, and so do its rings"
        )));
    }
    match &facts.ring {
        Ok(()) => Ok(as_advised("a ring can be made")),
        Err(Missing::Absent(why)) => Err(Missing::Absent(why.clone())),
        Err(Missing::Unreadable(why)) if facts.is_filtered == Ok(true) => Ok(change(
            format!("no ring can be made under the filter of system calls here: {why}"),
            "io_uring_setup, io_uring_enter and io_uring_register allowed",
            "docker run --security-opt seccomp=tuning/seccomp-docker.json",
        )),
        Err(Missing::Unreadable(why)) => Ok(change(
            format!("no ring can be made: {why}"),
            "Linux 5.8 or later, and enough locked memory",
            "uname -r; ulimit -l",
        )),
    }
}

/// Whose limits these are, for a sentence.
fn of_whom(facts: &Facts) -> String {
    match facts.whose {
        Whose::Edge(pid) => format!("of the edge (process {pid})"),
        Whose::Shell => "of this shell".to_owned(),
    }
}

fn limited(value: u64) -> String {
    match value {
        u64::MAX => "unlimited".to_owned(),
        value => value.to_string(),
    }
}

fn locked_memory(facts: &Facts, needs: &Needs) -> Found<Verdict> {
    let limit = facts.locked_memory.clone()?;
    let wanted = LOCKED_PER_SHARD.saturating_mul(needs.shards);
    let found = match limit {
        u64::MAX => format!("the limit of locked memory {} is unlimited", of_whom(facts)),
        octets => format!("the limit of locked memory {} is {} KiB", of_whom(facts), octets >> 10),
    };
    if facts.locks_freely == Ok(true) {
        return Ok(as_advised(format!("{found}, and this process is exempt")));
    }
    if limit >= wanted {
        return Ok(as_advised(found));
    }
    Ok(change(
        found,
        format!("at least {} KiB for {} shards", wanted >> 10, needs.shards),
        format!(
            "LimitMEMLOCK={LOCKED_MEMORY} in the unit; in a shell: ulimit -l {}",
            LOCKED_MEMORY >> 10
        ),
    ))
}

fn open_files(facts: &Facts, needs: &Needs) -> Found<Verdict> {
    let limit = facts.open_files.clone()?;
    let found = format!("the limit of open files {} is {}", of_whom(facts), limited(limit));
    if limit >= needs.files {
        return Ok(as_advised(found));
    }
    let most = OPEN_FILES.max(needs.files);
    Ok(change(
        found,
        format!("at least {} for max_connections = {}", needs.files, needs.connections),
        format!("LimitNOFILE={most} in the unit; in a shell: ulimit -n {most}"),
    ))
}

fn conntrack(facts: &Facts, needs: &Needs) -> Found<Verdict> {
    let (count, most) = facts.tracked.clone()?;
    let found = format!("{count} connections are tracked, of {most} that may be");
    // A closed connection stays in the table for two minutes.
    let wanted = needs.connections.saturating_mul(4);
    if count.saturating_mul(4) < most.saturating_mul(3) && (most >= wanted || count == 0) {
        return Ok(as_advised(found));
    }
    Ok(change(
        found,
        format!("room for at least {wanted}, or port 25 not tracked"),
        format!(
            "sysctl -w net.netfilter.nf_conntrack_max={}",
            wanted.max(most.saturating_mul(2))
        ),
    ))
}

fn softnet(facts: &Facts) -> Found<Verdict> {
    let (packets, drops) = facts.softnet.clone()?;
    let found = format!("of {packets} packets since it booted, {drops} found the queue of their core full");
    if drops == 0 {
        return Ok(as_advised(found));
    }
    if drops < packets / PACKETS_PER_DROP {
        return Ok(note(found, "few; look again when mail is slow"));
    }
    Ok(change(
        found,
        format!("fewer than one in {PACKETS_PER_DROP}"),
        "tuning/irq-affinity.sh eth0; sysctl -w net.core.netdev_max_backlog=4096",
    ))
}

fn socket_memory(facts: &Facts) -> Found<Verdict> {
    let pages = facts.socket_pages.clone()?;
    let text = setting("net.ipv4.tcp_mem", facts)?;
    let pressure = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let pressure: u64 = pressure.ok_or_else(|| Missing::Unreadable(format!("net.ipv4.tcp_mem is {text:?}")))?;
    let waits = facts
        .time_wait
        .as_ref()
        .map_or(String::new(), |n| format!("; {n} sockets in TIME_WAIT"));
    let found = format!("sockets hold {pages} pages; the kernel saves from {pressure} on{waits}");
    if pages < pressure / 4 * 3 {
        return Ok(as_advised(found));
    }
    let doubled: Vec<_> = text
        .split(' ')
        .filter_map(|word| Some((word.parse::<u64>().ok()? * 2).to_string()))
        .collect();
    Ok(change(
        found,
        "less than three quarters of it",
        format!("sysctl -w 'net.ipv4.tcp_mem={}'", doubled.join(" ")),
    ))
}

fn shards(facts: &Facts, needs: &Needs) -> Verdict {
    let found = format!("{} shards on {} cores", needs.shards, facts.cores);
    if needs.shards <= facts.cores {
        return as_advised(found);
    }
    change(found, "a core for each shard", "shards = 0 in the configuration")
}

fn quota(facts: &Facts, needs: &Needs) -> Found<Verdict> {
    let quota = facts.quota.clone()?;
    let found = format!(
        "the control group may take {}.{} cores and has used that up {} times; {} shards",
        quota / 1000,
        quota % 1000 / 100,
        facts.throttled,
        needs.shards
    );
    let fit = (quota / 1000).max(1);
    if needs.shards <= fit {
        return Ok(as_advised(found));
    }
    Ok(change(
        found,
        format!("at most {fit}"),
        format!(
            "shards = {fit} in the configuration, or a larger quota (docker run --cpus {})",
            needs.shards
        ),
    ))
}

fn huge_pages(facts: &Facts) -> Found<Verdict> {
    let given = facts.huge_pages.clone()?;
    // Then the environment says nothing, and that of another user's edge is not to be read.
    if given == "never" {
        return Ok(as_advised("the kernel gives huge pages: never"));
    }
    let taken = facts.allocator_takes_huge_pages.clone()?;
    let found = format!(
        "the kernel gives huge pages: {given}; the environment {} {} them",
        of_whom(facts),
        if taken { "takes" } else { "declines" }
    );
    if !taken {
        return Ok(as_advised(found));
    }
    Ok(change(
        found,
        "never, or an environment that declines them",
        "Environment=MIMALLOC_ALLOW_THP=0 in the unit; in a shell: export MIMALLOC_ALLOW_THP=0",
    ))
}

fn clock(facts: &Facts) -> Found<Verdict> {
    let clock = facts.clock.clone()?;
    let found = format!("the kernel's clock is {clock}");
    if !["hpet", "acpi_pm", "jiffies", "refined-jiffies"].contains(&clock.as_str()) {
        return Ok(as_advised(found));
    }
    Ok(change(
        found,
        "one that is read without a system call, such as tsc",
        "cat /sys/devices/system/clocksource/clocksource0/available_clocksource",
    ))
}

fn file_system(found: &FileSystem) -> Verdict {
    let text = format!("data_dir lies on {} ({}, {})", found.mount, found.kind, found.device);
    let unsafe_option = found
        .options
        .iter()
        .find(|option| ["nobarrier", "barrier=0"].contains(&option.as_str()));
    if let Some(option) = unsafe_option {
        let mend = format!("mount -o remount,barrier=1 {}", found.mount);
        return change(
            format!("{text}, mounted with {option}"),
            "barriers, or mail is lost with the power",
            mend,
        );
    }
    match found.kind.as_str() {
        "tmpfs" | "ramfs" => change(
            format!("{text}: in memory"),
            "a disk: what is acknowledged has to outlive a restart of the host",
            "data_dir in the configuration",
        ),
        "overlay" => note(
            text,
            "in a container: what is not delivered goes with the container, unless data_dir is a volume of its own",
        ),
        kind if is_remote(kind) => note(text, "a sync is as good and as fast as the server at the other end"),
        _ => as_advised(text),
    }
}

/// Whether a file system is served by another host or program. (fuseblk is one on a disk of this host.)
fn is_remote(kind: &str) -> bool {
    let served = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs", "fuse"];
    served.contains(&kind) || kind.starts_with("fuse.")
}

fn sync(facts: &Facts) -> Found<Verdict> {
    let syncs = facts.syncs.clone()?;
    let (p50, p99) = (syncs.p50.as_micros(), syncs.p99.as_micros());
    let cache = facts.file_system.as_ref().ok().and_then(|fs| fs.cache.clone());
    let found = format!(
        "a write of 4 KiB and fdatasync in data_dir: {p50} µs half of the time, {p99} µs at most in 99 of 100 ({} tries{})",
        syncs.count,
        cache.map_or(String::new(), |cache| format!(", the device says {cache}"))
    );
    if p50 > SYNC_P50_MOST_US || p99 > SYNC_P99_MOST_US {
        let wanted = format!("{} and {} ms", SYNC_P50_MOST_US / 1000, SYNC_P99_MOST_US / 1000);
        return Ok(change(
            found,
            wanted,
            "data_dir on a device whose cache survives a power cut",
        ));
    }
    if p50 < SYNC_HONEST_US {
        return Ok(note(
            found,
            "faster than a disk can be without a cache that survives a power cut: make sure that it has one, or it lies",
        ));
    }
    Ok(as_advised(found))
}

fn preemption(facts: &Facts) -> Found<Verdict> {
    let version = facts.preemption.clone()?;
    let word = version.split(' ').find(|word| word.starts_with("PREEMPT"));
    let found = format!("the kernel's preemption is {}", word.unwrap_or("none"));
    Ok(match word {
        Some("PREEMPT_DYNAMIC") => note(
            found,
            "which one holds: cat /sys/kernel/debug/sched/preempt (none: leave a core free)",
        ),
        Some(_) => as_advised(found),
        None => note(
            found,
            "a sync may wait for a tick when all cores are busy: leave a core free",
        ),
    })
}

fn drain(needs: &Needs) -> Verdict {
    let seconds = needs.drain.as_secs();
    let found = format!("drain_timeout is {seconds} s");
    if seconds <= DRAIN_OF_THE_UNIT_S {
        return as_advised(found);
    }
    note(
        found,
        format!(
            "the unit has to wait longer than that: TimeoutStopSec={}s",
            seconds + 15
        ),
    )
}

#[cfg(test)]
mod tests;
