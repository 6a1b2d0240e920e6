//! The machine that a run was made on: what is kept with its figures, as they mean nothing without.
//!
//! Promises: what cannot be read is left out; nothing secret is read. Linux: /proc and /sys only.

use std::fs;

use serde_json::{Map, Value, json};

/// Kernel settings that a server on loopback or a network feels.
const SYSCTLS: [&str; 28] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.sched_autogroup_enabled",
    "net.core.busy_poll",
    "net.core.default_qdisc",
    "net.core.netdev_budget",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "vm.dirty_ratio",
];

/// What it is.
pub fn facts() -> Value {
    let mut facts = Map::new();
    let mut note = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.insert(key.into(), value.into());
        }
    };
    note("kernel", read("/proc/sys/kernel/osrelease"));
    note(
        "system",
        read("/etc/os-release").and_then(|text| assigned(&text, "PRETTY_NAME")),
    );
    let cpu = read("/proc/cpuinfo").unwrap_or_default();
    note("cpu", listed(&cpu, "model name"));
    let cores = std::thread::available_parallelism();
    note("cores", cores.ok().map(|cores| cores.to_string()));
    note(
        "governor",
        read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    );
    note(
        "mitigations",
        read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
    );
    let memory = read("/proc/meminfo").unwrap_or_default();
    note("memory", listed(&memory, "MemTotal"));
    note("memory_available", listed(&memory, "MemAvailable"));
    note("load_average", read("/proc/loadavg"));
    let limits = read("/proc/self/limits").unwrap_or_default();
    for (key, name) in [("open_files", "Max open files"), ("locked_memory", "Max locked memory")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        note(
            key,
            line.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" soft, ") + " hard"),
        );
    }
    note("loadgen", Some(env!("CARGO_PKG_VERSION").into()));
    Value::Object(facts)
}

/// What its kernel is set to.
pub fn sysctl() -> Value {
    let mut settings = Map::new();
    for name in SYSCTLS {
        if let Some(value) = read(&format!("/proc/sys/{}", name.replace('.', "/"))) {
            settings.insert(name.into(), json!(value.replace('\t', " ")));
        }
    }
    Value::Object(settings)
}

/// The time of day as RFC 3339 has it, in UTC, to the second.
pub fn date() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    rfc3339(since.unwrap_or_default().as_secs())
}

/// Days to a date by the civil calendar (H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn rfc3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The value behind `KEY:`, of the first line that has it.
fn listed(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// The value of `KEY="value"`.
fn assigned(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name == key).then(|| value.trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_settings() {
        assert!(facts()["kernel"].as_str().is_some_and(|kernel| kernel.contains('.')));
        assert!(sysctl()["net.core.somaxconn"].is_string() || cfg!(not(target_os = "linux")));
    }

    #[test]
    fn seconds_become_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn values_are_found_by_their_keys() {
        assert_eq!(
            listed("a: 1\nmodel name\t: x y\n", "model name").as_deref(),
            Some("x y")
        );
        assert_eq!(
            assigned("A=1\nPRETTY_NAME=\"x y\"\n", "PRETTY_NAME").as_deref(),
            Some("x y")
        );
    }
}
