//! The real binary, running in a folder of its own: started with a configuration, asked, drained at the end.
//!
//! Promises: no address of another test is touched (port 0 everywhere), nothing is left behind (the process is stopped and
//! waited for when the [`Edge`] is dropped, the folder is removed), and every wait has an end: [`PATIENCE`].

// Several test targets share this file and none uses all of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;

/// How long a test waits for anything at most: much longer than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the process has written to stderr, line by line.
#[derive(Debug, Default)]
struct Lines {
    read: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    child: Option<Child>,
    lines: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
    bindings: Vec<(String, SocketAddr)>,
    admin: Option<SocketAddr>,
    // Last: removed when the process is gone.
    home: Home,
}

/// A folder for one edge: its working directory, with its configuration in it.
#[derive(Debug)]
pub struct Home(tempfile::TempDir, Vec<&'static str>);

impl Home {
    /// An empty folder.
    pub fn new() -> Home {
        Home(tempfile::tempdir().unwrap(), Vec::new())
    }

    /// An empty folder whose edge is started by another command, such as `prlimit --nofile=64`.
    pub fn under(command: &[&'static str]) -> Home {
        Home(tempfile::tempdir().unwrap(), command.to_vec())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file as a whole: nobody sees half of it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        let fresh = self.path().join(format!("{name}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    /// The command that serves with `postern.toml` of this folder.
    fn command(&self) -> Command {
        let mut words = self.1.iter().copied().chain([env!("CARGO_BIN_EXE_postern")]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .args(["serve", "--config", "postern.toml"])
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a configuration that is expected to end by itself: its exit status and all of stderr.
    pub fn run_to_end(&self, toml: &str) -> (ExitStatus, String) {
        self.write("postern.toml", toml);
        let mut child = self.command().spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let status = wait_for_exit(&mut child).unwrap_or_else(|| {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it went on running: {toml}")
        });
        (status, reader.join().unwrap())
    }
}

impl Edge {
    /// Starts with a configuration, in a fresh folder, and waits until it is ready.
    pub fn start(toml: &str) -> Edge {
        Edge::start_in(Home::new(), toml)
    }

    /// Starts in a folder that was prepared, and waits until it is ready. `ADMIN` in the text becomes a free address.
    pub fn start_in(mut home: Home, toml: &str) -> Edge {
        // A port that was free a moment ago may be taken by another test before it is bound: then once more.
        for _ in 0..5 {
            let admin = toml.contains("ADMIN").then(free_address);
            let text = admin.map_or(toml.to_owned(), |a| toml.replace("ADMIN", &a.to_string()));
            home.write("postern.toml", &text);
            let mut child = home.command().spawn().unwrap();
            let stderr = child.stderr.take().unwrap();
            let lines = Arc::new(Lines::default());
            let reader = std::thread::spawn({
                let lines = lines.clone();
                move || lines.fill(BufReader::new(stderr))
            });
            let mut edge = Edge {
                child: Some(child),
                lines,
                reader: Some(reader),
                bindings: Vec::new(),
                admin,
                home,
            };
            if edge.try_wait_for("postern ready").is_some() {
                edge.learn_addresses();
                return edge;
            }
            let said = edge.log();
            assert!(
                admin.is_some_and(|a| said.iter().any(|line| line.contains(&a.to_string()))),
                "not ready: {said:#?}"
            );
            let _ = edge.stop();
            home = std::mem::replace(&mut edge.home, Home::new());
        }
        panic!("no free port for [admin]");
    }

    /// Reads the `listening` lines once more, after a reload that opened addresses.
    pub fn learn_addresses(&mut self) {
        self.bindings = self
            .log()
            .iter()
            .filter(|line| line.contains("listening binding="))
            .map(|line| {
                // In JSON it is the end of the message.
                (
                    field(line, "binding").unwrap(),
                    field(line, "address")
                        .unwrap()
                        .trim_end_matches(['"', '}'])
                        .parse()
                        .unwrap(),
                )
            })
            .collect();
    }

    /// The first address of the first binding.
    pub fn address(&self) -> SocketAddr {
        self.bindings.first().expect("a binding that listens").1
    }

    /// The addresses of a binding, in the order of its configuration.
    pub fn addresses(&self, binding: &str) -> Vec<SocketAddr> {
        let of = self.bindings.iter().filter(|(name, _)| name == binding);
        of.map(|(_, address)| *address).collect()
    }

    /// The address of the admin pages.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// A new connection to the first address, whose greeting is not read yet.
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// The same from another loopback address, such as `127.0.0.7`.
    pub fn connect_from(&self, source: &str) -> Client {
        Client::connect_from(source, self.address())
    }

    /// A new connection that was greeted and has said EHLO.
    pub fn hello(&self) -> Client {
        self.connect().hello()
    }

    /// Its working directory.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// A path below its working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The files in `new` of a Maildir, read as a whole, in the order of their names.
    pub fn mail(&self, maildir: &str) -> Vec<Vec<u8>> {
        files(&self.path(maildir).join("new"))
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends a signal: "TERM", "HUP", "INT", "STOP", "CONT", "KILL".
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Every line of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.read.lock().unwrap().0.clone()
    }

    /// Waits for a line of the log that contains all of `words` (separated by `..`), and returns the first.
    pub fn wait_for(&self, words: &str) -> String {
        self.wait_for_number(words, 1).remove(0)
    }

    /// Waits until `number` lines of the log contain all of `words` (separated by `..`), and returns them.
    pub fn wait_for_number(&self, words: &str, number: usize) -> Vec<String> {
        let words: Vec<_> = words.split("..").map(str::trim).collect();
        self.lines
            .wait(|line| words.iter().all(|word| line.contains(word)), number)
            .unwrap_or_else(|| panic!("no {number} lines with {words:?} in {:#?}", self.log()))
    }

    fn try_wait_for(&self, words: &str) -> Option<String> {
        self.lines
            .wait(|line| line.contains(words), 1)
            .map(|mut lines| lines.remove(0))
    }

    /// All metrics, by name with labels: `postern_replies_total{code="250"}`. Needs `[admin] listen = "ADMIN"`.
    pub fn metrics(&self) -> HashMap<String, f64> {
        let page = self.page("/metrics");
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// One metric now; 0 where there is no such series.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().get(name).copied().unwrap_or_default()
    }

    /// Waits until a metric has a value.
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        let mut last = f64::NAN;
        let reached = eventually(|| {
            last = self.metric(name);
            last == value
        });
        assert!(reached, "{name} is {last}, not {value}");
    }

    /// The body of a page of the admin address.
    pub fn page(&self, path: &str) -> String {
        self.request(path).1
    }

    /// Status and body of a page of the admin address.
    pub fn request(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin.expect("[admin] listen = \"ADMIN\"")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// Its folder, for another start, once its process has ended.
    pub fn leave_home(mut self) -> Home {
        assert!(self.child.is_none(), "it runs");
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Asks it to drain with SIGTERM and waits for its end.
    pub fn drain(mut self) -> (ExitStatus, Vec<String>) {
        self.signal("TERM");
        let status = self.wait_for_exit();
        (status, self.log())
    }

    /// Waits until the process has ended by itself and all of its log is read.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = wait_for_exit(child).unwrap_or_else(|| panic!("it went on running: {:#?}", self.lines));
        self.child = None;
        self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
        status
    }

    /// Ends the process; its folder is there to start another one in.
    pub fn stop_and_keep_home(&mut self) -> Home {
        assert!(self.stop().is_some(), "it did not end on SIGTERM: {:#?}", self.log());
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Ends the process whatever it does; it has a little time to do so by itself.
    fn stop(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        // Twice: the second one ends transactions too, and there is nobody left to finish them.
        for _ in 0..2 {
            signal(child.id(), "TERM");
        }
        let status = wait_for_exit(&mut child);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.reader.take().into_iter().for_each(|reader| drop(reader.join()));
        status
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let stopped = self.child.is_none() || self.stop().is_some();
        if std::thread::panicking() {
            let log = self.log();
            let end = log.len().saturating_sub(40);
            eprintln!("the log of the edge:\n{}", log[end..].join("\n"));
        } else {
            assert!(stopped, "it did not end on SIGTERM: {:#?}", self.log());
        }
    }
}

impl Lines {
    fn fill(&self, stderr: impl BufRead) {
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.read.lock().unwrap().0.push(line);
            self.more.notify_all();
        }
        self.read.lock().unwrap().1 = true;
        self.more.notify_all();
    }

    /// None when time is over, or when stderr is closed before there are so many.
    fn wait(&self, wanted: impl Fn(&str) -> bool, number: usize) -> Option<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let mut read = self.read.lock().unwrap();
        loop {
            let found: Vec<_> = read.0.iter().filter(|line| wanted(line)).cloned().collect();
            if found.len() >= number {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if read.1 || left.is_zero() {
                return None;
            }
            read = self.more.wait_timeout(read, left).unwrap().0;
        }
    }
}

/// The value of `key=value` or `key="quoted value"` in a line of the log.
pub fn field(line: &str, key: &str) -> Option<String> {
    let start = line.find(&format!(" {key}="))? + key.len() + 2;
    let rest = &line[start..];
    Some(match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?.to_owned(),
        None => rest.split(' ').next()?.to_owned(),
    })
}

/// The files of a folder, sorted; none where there is no such folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// Asks again and again until it is so, or until [`PATIENCE`] is over.
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// An address that nobody listened on a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn signal(pid: u32, name: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "KILL" => Signal::KILL,
        other => panic!("no such signal here: {other}"),
    };
    // It may be gone already.
    let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, signal));
}

fn wait_for_exit(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    eventually(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}
