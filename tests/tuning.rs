//! tuning/ against the program: the guide, the sysctl file and the limits are written from the advice that `postern tune` judges
//! by; unit, seccomp profile and scripts say the same.
//!
//! Promises: `POSTERN_BLESS=1 cargo test --test tuning` writes those files anew. The command runs on this host as it is.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use postern::host::advice::{CHAPTERS, Check, LOCKED_MEMORY, OPEN_FILES, rows};

/// Columns of a line of the guide.
const WIDTH: usize = 140;

fn tuning(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(tuning(name)).unwrap_or_default()
}

fn is_as_made(name: &str, made: &str) {
    if std::env::var_os("POSTERN_BLESS").is_some() {
        fs::create_dir_all(tuning(name).parent().unwrap()).unwrap();
        fs::write(tuning(name), made).unwrap();
    }
    let written = read(name);
    for (number, (is, should)) in written.lines().zip(made.lines()).enumerate() {
        assert_eq!(
            is,
            should,
            "tuning/{name}:{} is not what the advice says: POSTERN_BLESS=1 cargo test --test tuning",
            number + 1
        );
    }
    assert_eq!(written.lines().count(), made.lines().count(), "tuning/{name}");
}

#[test]
fn the_guide_is_that_of_the_advice() {
    let (open, close) = ("<!-- advice -->\n", "<!-- end of advice -->");
    let written = read("README.md");
    let (head, rest) = written.split_once(open).unwrap();
    let (_, tail) = rest.split_once(close).unwrap();
    is_as_made("README.md", &format!("{head}{open}{}{close}{tail}", guide()));
}

fn guide() -> String {
    let mut text = String::new();
    for chapter in CHAPTERS {
        text += &format!("\n## {}\n", chapter.title);
        for row in chapter.rows {
            text += &format!("\n### {}\n\n", row.id);
            text += &wrapped(row.symptom, "", "");
            text += "\n";
            for (name, said) in [
                ("See", row.see),
                ("Set", row.set),
                ("Why", &sentence(row.why)),
                ("Cost", row.cost),
                ("Measured", row.measured),
                ("Source", row.source),
            ] {
                text += &wrapped(&format!("- **{name}**: {said}"), "", "  ");
            }
        }
    }
    text + "\n"
}

/// Half a sentence of the command's output as a whole one.
fn sentence(half: &str) -> String {
    let mut letters = half.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn wrapped(text: &str, first: &str, next: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &format!("{line}\n");
            line = next.to_owned();
        }
        if !line.trim().is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}

#[test]
fn the_sysctl_file_is_that_of_the_advice() {
    let mut text = "\
# For a host that runs postern. Copy to /etc/sysctl.d/60-postern.conf, then: sysctl --system
# Made from the advice of `postern tune`, which says whether a line is needed here; README.md of tuning/ says what was measured.
# Leave a line out where the host has more already (somaxconn, tcp_rmem, tcp_wmem): a file sets what it says, also when it is less.
"
    .to_owned();
    for row in rows() {
        let (key, value) = match row.check {
            // No more than the kernel's default, and systemd has set far more by then.
            Check::Sysctl("fs.nr_open", _) => continue,
            Check::Sysctl(key, wanted) => (key, wanted.value().to_string()),
            Check::IoUring => ("kernel.io_uring_disabled", "0".to_owned()),
            _ => continue,
        };
        let value = match key {
            "net.ipv4.tcp_rmem" => format!("4096 131072 {value}"),
            "net.ipv4.tcp_wmem" => format!("4096 16384 {value}"),
            _ => value,
        };
        text += &format!("\n# {}: {}.\n{key} = {value}\n", row.id, row.why);
    }
    is_as_made("sysctl.d/60-postern.conf", &text);
}

#[test]
fn the_limits_are_those_of_the_advice_in_every_file() {
    let text = format!(
        "\
# For a postern that is started from a login, not by systemd (pam_limits does not see services: postern.service has its own).
# Copy to /etc/security/limits.d/60-postern.conf and put the user that runs it in place of postern.
postern  soft  nofile   {OPEN_FILES}
postern  hard  nofile   {OPEN_FILES}
postern  soft  memlock  {memlock}
postern  hard  memlock  {memlock}
",
        memlock = LOCKED_MEMORY >> 10
    );
    is_as_made("limits.d/60-postern.conf", &text);
    let unit = read("postern.service");
    for line in [
        format!("LimitNOFILE={OPEN_FILES}"),
        format!("LimitMEMLOCK={}M", LOCKED_MEMORY >> 20),
        "Environment=MIMALLOC_ALLOW_THP=0".to_owned(),
        "TimeoutStopSec=45s".to_owned(),
        "AmbientCapabilities=CAP_NET_BIND_SERVICE".to_owned(),
        "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register".to_owned(),
    ] {
        assert!(
            unit.lines().any(|of_unit| of_unit == line),
            "postern.service lacks {line}"
        );
    }
}

#[test]
fn the_seccomp_profile_allows_io_uring_and_refuses_the_rest_by_default() {
    let profile: serde_json::Value = serde_json::from_str(&read("seccomp-docker.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed: Vec<&str> = profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].as_array().is_none_or(Vec::is_empty))
        .filter(|rule| {
            ["includes", "excludes"]
                .iter()
                .all(|c| rule[c].as_object().is_none_or(|o| o.is_empty()))
        })
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .filter_map(|name| name.as_str())
        .collect();
    for call in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "accept4",
        "fdatasync",
        "futex",
    ] {
        assert!(allowed.contains(&call), "{call}");
    }
    for call in ["mount", "bpf", "kexec_load", "init_module", "ptrace", "unshare"] {
        assert!(!allowed.contains(&call), "{call} is allowed to everybody");
    }
}

#[test]
fn every_measurement_that_a_row_names_is_there_and_every_one_there_is_named() {
    let all: String = rows().map(|row| [row.measured, row.cost, row.set].join(" ")).collect();
    for file in fs::read_dir(tuning("measure")).unwrap().map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        if let Some(script) = name.strip_suffix(".sh").filter(|script| *script != "lib") {
            assert!(
                all.contains(&format!("(measure/{script}.sh)")),
                "no row names measure/{name}"
            );
        }
    }
}

#[test]
fn every_script_is_one_that_a_shell_can_read_and_that_may_be_run() {
    let scripts = fs::read_dir(tuning("measure"))
        .unwrap()
        .map(|file| file.unwrap().path());
    let scripts: Vec<_> = scripts
        .filter(|path| path.extension().is_some_and(|ext| ext == "sh"))
        .chain([tuning("irq-affinity.sh")])
        .collect();
    assert!(scripts.len() > 10);
    for script in scripts {
        let read = Command::new("bash").arg("-n").arg(&script).status().unwrap();
        assert!(read.success(), "{}", script.display());
        let runs = fs::metadata(&script).unwrap().permissions().mode() & 0o111 != 0;
        assert!(runs || script.ends_with("lib.sh"), "{}: chmod +x", script.display());
    }
}

#[test]
fn the_command_tells_its_verdicts_in_both_forms_and_by_its_exit_status() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(arguments)
            .current_dir(home.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, lines) = run(&["tune", "--json"]);
    let findings: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let judged = rows().filter(|row| row.check != Check::Guide).count();
    assert_eq!(findings.len(), judged);
    let changes = findings.iter().filter(|finding| finding["verdict"] == "change").count();
    assert_eq!(code, Some(i32::from(changes > 0)));
    let sync = findings.iter().find(|finding| finding["id"] == "sync").unwrap();
    assert!(
        sync["found"].as_str().unwrap().contains("µs half of the time"),
        "{sync}"
    );

    let (_, text) = run(&["tune"]);
    assert!(text.starts_with("No edge runs with this data_dir"), "{text}");
    assert!(text.contains("as advised,") && !text.contains('\x1b'), "{text}");
    // It leaves nothing behind, not even data_dir.
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

/// What the script says of a card whose interrupts have these names, from 40 on, on a host of four cores.
fn spread_by_the_script(device: &str, names: &[&str]) -> String {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("sys/devices/system/cpu/online", "0-3\n");
    let card = format!("sys/class/net/{device}");
    let mut table = "            CPU0       CPU1\n".to_owned();
    for (at, name) in names.iter().enumerate() {
        let number = 40 + at;
        write(&format!("{card}/device/msi_irqs/{number}"), "msix\n");
        write(&format!("{card}/queues/rx-{at}/rps_cpus"), "0\n");
        write(&format!("proc/irq/{number}/smp_affinity_list"), "0-3\n");
        table += &format!(" {number}:   7   9  PCI-MSIX-0000:00:03.0   {at}-edge      {name}\n");
    }
    write("proc/interrupts", &table);
    let output = Command::new(tuning("irq-affinity.sh"))
        .arg(device)
        .arg("--apply")
        .env("SYSFS", root.path().join("sys"))
        .env("PROCFS", root.path().join("proc"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lists = (40..40 + names.len())
        .map(|number| fs::read_to_string(root.path().join(format!("proc/irq/{number}/smp_affinity_list"))).unwrap());
    lists.map(|list| list.trim().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn only_interrupts_of_receive_queues_are_spread_over_the_cores() {
    for (names, lists) in [
        (
            &[
                "virtio0-config",
                "virtio0-input.0",
                "virtio0-output.0",
                "virtio0-input.1",
                "virtio0-output.1",
            ][..],
            "0-3 0 0-3 1 0-3",
        ),
        (
            &["", "eth0-rx-0", "eth0-tx-0", "eth0-rx-1", "eth0-tx-1"],
            "0-3 0 0-3 1 0-3",
        ),
        (
            &["ena-mgmnt@pci:0000:00:05.0", "eth0-Tx-Rx-0", "eth0-Tx-Rx-1"],
            "0-3 0 1",
        ),
        (
            &[
                "mlx5_async0@pci:0000:00:05.0",
                "mlx5_comp0@pci:0000:00:05.0",
                "mlx5_comp1@pci:0000:00:05.0",
            ],
            "0-3 0 1",
        ),
        // Of a queue and of the link; and of all together.
        (&["eth0", "eth0-TxRx-0"], "0-3 0"),
        (&["eth0"], "0"),
    ] {
        assert_eq!(spread_by_the_script("eth0", names), lists, "{names:?}");
    }
}

/// An edge that ends with the test.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_limits_are_those_of_the_edge_that_runs_with_the_same_configuration() {
    let (edge, text) = tuned_beside_an_edge(1, &[]);
    assert!(text.starts_with(&format!("The edge runs as process {edge};")), "{text}");
    assert!(text.contains(&format!("of the edge (process {edge})")), "{text}");
    // That of this process may be as it likes.
    assert!(
        text.contains(&format!("the edge (process {edge}) runs, and so do its rings")),
        "{text}"
    );
}

#[test]
fn shards_are_held_against_the_cores_of_the_edge_not_of_this_command() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = cores.unwrap().trim().split([',', '-']).next().unwrap();
    let (_, text) = tuned_beside_an_edge(0, &["taskset", "-c", first]);
    assert!(text.contains("1 shards on 1 cores"), "{text}");
    let (_, text) = tuned_beside_an_edge(2, &["taskset", "-c", first]);
    assert!(text.contains("2 shards on 1 cores"), "{text}");
}

/// What `postern tune` says while an edge with so many shards runs, started by the command in front; and the process of that.
fn tuned_beside_an_edge(shards: usize, before: &[&str]) -> (u32, String) {
    let home = tempfile::tempdir().unwrap();
    let configuration = format!("shards = {shards}\n[[binding]]\naddress = [\"127.0.0.1:0\"]\n");
    fs::write(home.path().join("p.toml"), configuration).unwrap();
    let postern = env!("CARGO_BIN_EXE_postern");
    let run = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(home.path());
        command
    };
    let mut start = run(&[before, &[postern, "--config", "p.toml"]].concat());
    let mut child = start.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let edge = Edge(child);
    let mut line = String::new();
    while !line.contains("postern ready") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it has not started");
    }
    let output = run(&[postern, "tune", "--config", "p.toml"]).output().unwrap();
    (edge.0.id(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_wrong_configuration_ends_it_with_2_like_check() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("p.toml"), "shard = 1\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["tune", "--config", "p.toml"])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("p.toml:1:1") && said.contains("shard"), "{said}");
}
