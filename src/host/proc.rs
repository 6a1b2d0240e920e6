//! Reading a live host: files of /proc and /sys.
//!
//! Promises: reads only; the root to read from is an argument, so that a test brings its own; a file that is not there, or
//! not to be read, becomes a [`Missing`] with a sentence. Lives on the main thread of `postern tune`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::advice::{self, Check};
use super::facts::{Facts, FileSystem, Found, Missing, Needs, Syncs, Whose};

/// Bits of `CapEff` in /proc/PID/status (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
/// Lines of /proc/PID/limits.
const OPEN_FILES: &str = "Max open files";
const LOCKED_MEMORY: &str = "Max locked memory";
/// A state of /proc/net/tcp.
const LISTEN: &str = "0A";

/// Settings that are no row of their own but are asked about.
const MORE_SYSCTLS: &[&str] = &["kernel.io_uring_group", "net.ipv4.tcp_mem"];

/// A host to read.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    whose: Whose,
}

/// What is measured or known beside the files.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Whether a ring could be made.
    pub ring: Found<()>,
    /// Times of syncs in `data_dir`.
    pub syncs: Found<Syncs>,
    /// Cores that the process whose limits count may run on.
    pub cores: u64,
}

impl Host {
    /// The host below `root` (`/` but for tests), with the limits of the running edge or of this shell.
    pub fn new(root: &Path, whose: Whose) -> Host {
        Host {
            root: root.to_owned(),
            whose,
        }
    }

    /// Reads everything.
    pub fn read(&self, needs: &Needs, tried: Tried) -> Facts {
        let status = self.of_process("status");
        let capable = |bit| {
            let mask = field(status.as_deref().map_err(Clone::clone)?, "CapEff:")?;
            let mask = u64::from_str_radix(&mask, 16).map_err(|_| strange("CapEff of /proc/PID/status"))?;
            Ok(mask >> bit & 1 == 1)
        };
        let limits = self.of_process("limits");
        let limit = |name| limit(limits.as_deref().map_err(Clone::clone)?, name);
        let sysctls: BTreeMap<_, _> = advice::rows()
            .filter_map(|row| match row.check {
                Check::Sysctl(key, _) => Some(key),
                Check::IoUring => Some("kernel.io_uring_disabled"),
                _ => None,
            })
            .chain(MORE_SYSCTLS.iter().copied())
            .map(|key| (key, self.sysctl(key)))
            .collect();
        let ring_group = sysctls["kernel.io_uring_group"].clone();
        let words = |name| field(status.as_deref().map_err(Clone::clone)?, name);
        // The last of the four (real, effective, saved, of the file system) is the one that the kernel asks for.
        let own_group = words("Gid:").map(|ids| ids.split_whitespace().last().unwrap_or_default().to_owned());
        let groups = [own_group.clone(), words("Groups:")];
        let is_member = |group: &String| {
            let mut own = groups.iter().flatten().flat_map(|groups| groups.split_whitespace());
            own.any(|own| own == group)
        };
        let sockets = self.of_process("net/sockstat");
        let socket = |name| sockstat(sockets.as_deref().map_err(Clone::clone)?, name);
        Facts {
            whose: self.whose,
            locks_freely: capable(CAP_IPC_LOCK),
            is_privileged: capable(CAP_SYS_ADMIN),
            in_ring_group: ring_group.is_ok_and(|group| is_member(&group)),
            group: own_group.and_then(|id| id.parse().map_err(|_| strange("Gid of /proc/PID/status"))),
            is_filtered: status
                .as_deref()
                .map_err(Clone::clone)
                .and_then(|text| Ok(field(text, "Seccomp:")? != "0")),
            ring: tried.ring,
            open_files: limit(OPEN_FILES),
            locked_memory: limit(LOCKED_MEMORY),
            allocator_takes_huge_pages: self.allocator_takes_huge_pages(),
            huge_pages: self.huge_pages(),
            sysctls,
            counters: self.counters(),
            waiting: self.waiting(&needs.ports),
            time_wait: socket("tw"),
            socket_pages: socket("mem"),
            softnet: self.softnet(),
            tracked: self.tracked(),
            memory: self.memory(),
            cores: tried.cores,
            quota: self.quota(),
            throttled: self.throttled(),
            clock: self.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            preemption: self.text("proc/sys/kernel/version"),
            file_system: self.file_system(&needs.data_dir),
            syncs: tried.syncs,
        }
    }

    fn text(&self, path: &str) -> Found<String> {
        let path = self.root.join(path);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Missing::Absent(format!("there is no {}", path.display())))
            }
            Err(error) => Err(Missing::Unreadable(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// A file of the process whose limits count.
    fn of_process(&self, name: &str) -> Found<String> {
        match self.whose {
            Whose::Edge(pid) => self.text(&format!("proc/{pid}/{name}")),
            Whose::Shell => self.text(&format!("proc/self/{name}")),
        }
    }

    /// Settings of the network belong to a namespace: those read here are the edge's only if it lives in ours.
    fn sysctl(&self, key: &str) -> Found<String> {
        if key.starts_with("net.") && !self.shares_network() {
            let Whose::Edge(pid) = self.whose else {
                return Err(strange(key));
            };
            return Err(Missing::Unreadable(format!(
                "the edge has a network of its own: nsenter -t {pid} -n postern tune"
            )));
        }
        let text = self.text(&format!("proc/sys/{}", key.replace('.', "/")))?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn shares_network(&self) -> bool {
        let Whose::Edge(pid) = self.whose else {
            return true;
        };
        let link = |who: &str| fs::read_link(self.root.join(format!("proc/{who}/ns/net")));
        match (link("self"), link(&pid.to_string())) {
            (Ok(own), Ok(its)) => own == its,
            // Where it cannot be told, nothing speaks for another one.
            _ => true,
        }
    }

    /// /proc/net/netstat and /proc/net/snmp: a line of names, then one of numbers, for each group.
    fn counters(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for file in ["net/netstat", "net/snmp"] {
            let text = self.of_process(file).unwrap_or_default();
            let mut lines = text.lines();
            while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                let Some((group, names)) = names.split_once(':') else {
                    continue;
                };
                let values = values.split_once(':').map_or("", |(_, values)| values);
                for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                    if let Ok(value) = value.parse() {
                        all.insert(format!("{group}{name}"), value);
                    }
                }
            }
        }
        all
    }

    /// Of a listening socket, /proc/net/tcp shows as rx_queue how many wait to be accepted (proc_pid_net(5)).
    fn waiting(&self, ports: &[u16]) -> Found<u64> {
        let mut all = 0;
        for (file, is_needed) in [("net/tcp", true), ("net/tcp6", false)] {
            let text = match self.of_process(file) {
                Ok(text) => text,
                Err(missing) if is_needed => return Err(missing),
                Err(_) => continue,
            };
            for line in text.lines().skip(1) {
                let mut words = line.split_whitespace().skip(1);
                let (local, _, state, queues) = (words.next(), words.next(), words.next(), words.next());
                let port = local.and_then(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok());
                let rx = queues.and_then(|queues| u64::from_str_radix(queues.split_once(':')?.1, 16).ok());
                if state == Some(LISTEN) && port.is_some_and(|port| ports.contains(&port)) {
                    all += rx.unwrap_or(0);
                }
            }
        }
        Ok(all)
    }

    /// A line for each core: the first column counts packets, the second those that found the core's queue full.
    fn softnet(&self) -> Found<(u64, u64)> {
        let text = self.of_process("net/softnet_stat")?;
        let sum = |column: usize| {
            let number = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
            text.lines().filter_map(number).sum()
        };
        Ok((sum(0), sum(1)))
    }

    fn tracked(&self) -> Found<(u64, u64)> {
        let number = |name: &str| {
            let text = self.sysctl(&format!("net.netfilter.{name}"))?;
            text.parse().map_err(|_| strange(name))
        };
        Ok((number("nf_conntrack_count")?, number("nf_conntrack_max")?))
    }

    fn memory(&self) -> Found<u64> {
        let total = field(&self.text("proc/meminfo")?, "MemTotal:")?;
        let kilobytes = total.split_whitespace().next().and_then(|word| word.parse().ok());
        let octets = kilobytes.and_then(|kilobytes: u64| kilobytes.checked_mul(1024));
        octets.ok_or_else(|| strange("MemTotal of /proc/meminfo"))
    }

    /// `always [madvise] never`: the one in brackets holds.
    fn huge_pages(&self) -> Found<String> {
        let text = self.text("sys/kernel/mm/transparent_hugepage/enabled")?;
        let held = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        held.map(|(word, _)| word.to_owned())
            .ok_or_else(|| strange("/sys/kernel/mm/transparent_hugepage/enabled"))
    }

    fn allocator_takes_huge_pages(&self) -> Found<bool> {
        let environment = self.of_process("environ")?;
        // Name and word in any case, as mimalloc takes them (mi_option_init).
        let value = environment.split('\0').find_map(|variable| {
            let (name, value) = variable.split_once('=')?;
            name.eq_ignore_ascii_case("MIMALLOC_ALLOW_THP").then_some(value)
        });
        let is_no = |value: &str| {
            ["0", "false", "off", "no"]
                .iter()
                .any(|no| value.eq_ignore_ascii_case(no))
        };
        Ok(!value.is_some_and(is_no))
    }

    /// The tightest quota of the control groups above the process, in thousandths of a core.
    fn quota(&self) -> Found<u64> {
        let mut least: Option<u64> = None;
        for group in self.groups()? {
            for level in group.ancestors().take_while(|level| level.starts_with("sys/fs/cgroup")) {
                let read = |name: &str| self.text(&level.join(name).to_string_lossy());
                let quota = match read("cpu.max") {
                    Ok(text) => text
                        .split_once(' ')
                        .map(|(quota, period)| (quota.to_owned(), period.to_owned())),
                    Err(_) => read("cpu.cfs_quota_us").ok().zip(read("cpu.cfs_period_us").ok()),
                };
                // Without a quota it is "max" or -1, neither of which is such a number.
                let thousandths = quota.and_then(|(quota, period)| {
                    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
                    (quota * 1000).checked_div(period)
                });
                least = [least, thousandths].into_iter().flatten().min();
            }
        }
        least.ok_or_else(|| Missing::Absent("no control group has a quota of CPU time".into()))
    }

    fn throttled(&self) -> u64 {
        let groups = self.groups().unwrap_or_default();
        let times = groups.iter().filter_map(|group| {
            let text = self.text(&group.join("cpu.stat").to_string_lossy()).ok()?;
            field(&text, "nr_throttled ").ok()?.parse::<u64>().ok()
        });
        times.sum()
    }

    /// The control groups of the process that have a say in CPU time, in either version.
    fn groups(&self) -> Found<Vec<PathBuf>> {
        let text = self.of_process("cgroup")?;
        let group = |line: &str| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let home = match controllers {
                "" => "sys/fs/cgroup",
                c if c.split(',').any(|c| c == "cpu") => "sys/fs/cgroup/cpu",
                _ => return None,
            };
            Some(Path::new(home).join(path.trim_start_matches('/')))
        };
        Ok(text.lines().filter_map(group).collect())
    }

    /// The mount with the longest path that `path` lies below; the last of several in one place is on top.
    fn file_system(&self, path: &Path) -> Found<FileSystem> {
        let text = self.text("proc/self/mountinfo")?;
        let best = text
            .lines()
            .filter_map(mount)
            .filter(|(_, fs)| path.starts_with(&fs.mount))
            .max_by_key(|(_, fs)| fs.mount.len());
        let (number, mut found) = best.ok_or_else(|| strange("/proc/self/mountinfo"))?;
        let device = self.root.join(format!("sys/dev/block/{number}"));
        // Of a partition the queue is that of the disk above it.
        found.cache = ["queue/write_cache", "../queue/write_cache"]
            .iter()
            .find_map(|path| fs::read_to_string(device.join(path)).ok())
            .map(|text| text.trim().to_owned());
        Ok(found)
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)): major:minor of the device, and the file system.
fn mount(line: &str) -> Option<(&str, FileSystem)> {
    let (own, rest) = line.split_once(" - ")?;
    let mut own = own.split(' ').skip(2);
    let (number, _, mount, options) = (own.next()?, own.next()?, own.next()?, own.next()?);
    let mut rest = rest.split(' ');
    let (kind, device, more) = (rest.next()?, rest.next()?, rest.next().unwrap_or_default());
    let options = options.split(',').chain(more.split(','));
    Some((
        number,
        FileSystem {
            // Blanks in it are written in octal.
            mount: mount.replace("\\040", " "),
            kind: kind.to_owned(),
            options: options.map(str::to_owned).collect(),
            device: device.to_owned(),
            cache: None,
        },
    ))
}

/// The rest of the line that begins so.
fn field(text: &str, name: &str) -> Found<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|rest| rest.trim().to_owned()).ok_or_else(|| {
        Missing::Absent(format!(
            "this kernel does not say {}",
            name.trim_end_matches([':', ' '])
        ))
    })
}

/// A limit of /proc/PID/limits. postern lifts that of open files to the hard one when it starts, and no other.
fn limit(text: &str, name: &str) -> Found<u64> {
    let values = field(text, name)?;
    let mut values = values.split_whitespace();
    let (soft, hard) = (values.next(), values.next());
    match if name == OPEN_FILES { hard } else { soft } {
        Some("unlimited") => Ok(u64::MAX),
        Some(number) => number.parse().map_err(|_| strange(name)),
        None => Err(strange(name)),
    }
}

/// A number of the line "TCP:" of sockstat.
fn sockstat(text: &str, name: &str) -> Found<u64> {
    let line = field(text, "TCP:")?;
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    let value = words.nth(1).and_then(|word| word.parse().ok());
    value.ok_or_else(|| strange(name))
}

fn strange(what: &str) -> Missing {
    Missing::Unreadable(format!("{what} is not in the form that is known here"))
}
