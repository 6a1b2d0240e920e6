//! The command line, which is also the manual: every flag says what it does, its unit and its default.
//!
//! Promises: what comes out of here is within bounds (no zero where one is needed, no target off this machine unless
//! said to be the user's own). Pure data; used before the run starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rustix::thread::{CpuSet, sched_getaffinity};

pub use self::protocol::{ProtocolFlags, Security};
pub use self::values::{Contender, Cores, PerConnection, Pipelining, Sources, Switch, duration};
use self::values::{address, at_least_one, rate};
use crate::abuse::Kind;
use crate::compare::CompareFlags;
use crate::connect;
use crate::message::size::Sizes;
use crate::sink::flags::SinkFlags;
use crate::threshold::Threshold;
use crate::verify::VerifyFlags;

mod protocol;
mod values;

/// At the end of the manual.
const EXAMPLES: &str = "\
Examples:
  loadgen 127.0.0.1:2525 --pid $(pidof postern)            as fast as the server takes 4 KB messages, and its CPU time
  loadgen --rate 200 --duration 30s --report run.html      latency at a given rate, as a page
  loadgen --per-connection 1 --tls starttls                a connection and a handshake for each message
  loadgen --scenario mixed                                 a day at an MX; `--scenario list` names the others
  loadgen --rate 500 --fail-if 'p99>20ms' --fail-if 'failures>0'
                                                           for CI: exit status 1 beyond a limit
  loadgen bench new=127.0.0.1:2525=PID old=127.0.0.1:2600=PID --report both.html
                                                           two servers in turns
  loadgen --messages 1000 --expect sent.json && loadgen verify var/mail --expect sent.json
                                                           whether all that was accepted has arrived, once and whole";

/// Measures SMTP servers: sends messages as fast as the server takes them and says what that cost both sides.
///
/// Without --rate a closed loop: each connection sends its next message when the last one is answered. Its latency is that
/// of a server kept busy by --connections clients and says nothing about a server at a given rate. With --rate an open
/// loop: latency counts from the planned time of each message.
///
/// Only 127.0.0.0/8 and [::1] are taken as targets unless --target-is-mine is given.
///
/// Exit status: 0 when every message was accepted; 1 when a message or a connection failed, a --fail-if held, or the run could
/// not be made; 2 for wrong flags.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 120, after_long_help = EXAMPLES)]
pub struct Cli {
    /// What to do in place of a single run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The single run.
    #[command(flatten)]
    pub run: RunFlags,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the same load against two or more servers in turns (A B B A ...) and prints all of them, medians and ratios.
    #[command(alias = "versus")]
    Bench(Box<BenchFlags>),
    Sink(Box<SinkFlags>),
    Verify(VerifyFlags),
    Compare(CompareFlags),
}

/// A run against one server.
#[derive(Clone, Debug, Args)]
pub struct RunFlags {
    /// Server to load: IP:PORT.
    #[arg(default_value = "127.0.0.1:2525")]
    pub target: SocketAddr,
    /// Process of the server: its CPU time (all threads, from /proc) is read over the run. May be repeated.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Opens N connections, reads their greetings, keeps them quiet for --duration, then measures how soon a new client
    /// is greeted. With --pid also resident memory and CPU time of the server. Sends no message.
    #[arg(long, value_name = "N", conflicts_with_all = ["messages", "connections"])]
    pub idle: Option<usize>,
    /// Sends no message: --connections clients that misbehave, each kind in turn, over and over for --duration, while good
    /// clients see how soon they are greeted. half-closed: ends its sending within a command. reset: RST in the content.
    /// garbage: octets that are no command. deaf: never reads. slow: an octet a second.
    #[arg(long, value_name = "KIND,...", value_enum, value_delimiter = ',', conflicts_with_all = ["messages", "idle"])]
    pub abuse: Vec<Kind>,
    /// Takes the flags of a file, or of a scenario that is built in; flags beside it go before it. `--scenario list` names
    /// them.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub scenario: Option<String>,
    #[command(flatten)]
    pub load: LoadFlags,
}

/// Servers under the same load.
#[derive(Debug, Args)]
pub struct BenchFlags {
    /// The server that the others are compared with: NAME=IP:PORT or NAME=IP:PORT=PID; PID may be several, separated by
    /// commas. Ratios are to the last of --a, --b and SERVER.
    #[arg(long, value_name = "NAME=ADDR=PID")]
    pub a: Option<Contender>,
    /// Another one, likewise.
    #[arg(long, value_name = "NAME=ADDR=PID")]
    pub b: Option<Contender>,
    /// The servers, where --a and --b are not used: two or more.
    #[arg(value_name = "NAME=ADDR=PID")]
    pub servers: Vec<Contender>,
    /// How often each is run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    #[command(flatten)]
    pub load: LoadFlags,
}

impl BenchFlags {
    /// The servers, in the order in which they are told.
    pub fn servers(&self) -> impl Iterator<Item = &Contender> {
        self.a.iter().chain(&self.b).chain(&self.servers)
    }
}

/// The load: the same for every way of running it.
#[derive(Clone, Debug, Args)]
pub struct LoadFlags {
    /// Connections kept at work at the same time.
    #[arg(long, default_value_t = 50, value_parser = at_least_one, help_heading = "How much")]
    pub connections: usize,
    /// Sends exactly N messages, without warm-up, in place of sending for a time.
    #[arg(long, value_name = "N", conflicts_with = "duration", help_heading = "How much")]
    pub messages: Option<u64>,
    /// How long to measure: 500ms, 10s, 2m.
    #[arg(long, default_value = "10s", value_parser = duration, help_heading = "How much")]
    pub duration: Duration,
    /// Load before measuring, not part of the figures. Not used with --messages.
    #[arg(long, default_value = "1s", value_parser = duration, help_heading = "How much")]
    pub warm_up: Duration,
    /// Open loop: sends so many messages a second, each at a time fixed beforehand, whatever became of those before it.
    /// Latency is then told from the planned time too, so that a stall of the server counts for every message that it
    /// delayed. A message whose time has come while all connections are busy waits for the first that is free. Without
    /// it a closed loop: each connection sends its next message when the last one is answered.
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "How much")]
    pub rate: Option<f64>,
    /// The rate rises from nothing to --rate within this time; in a closed loop connections are added one by one within
    /// it. Part of the warm-up or the measured time, so take a longer --warm-up to leave it out.
    #[arg(long, default_value = "0s", value_parser = duration, help_heading = "How much")]
    pub ramp: Duration,
    /// Octets of a message's content, a header of some 600 octets and a body that looks like base64: 4096 or 4k;
    /// 1k..64k (uniform); lognormal(20k,1.2) (median, deviation of the logarithm); exp(20k) (mean); or mix, a day of an MX.
    #[arg(long, value_name = "SIZE", default_value = "4096", help_heading = "What is sent")]
    pub size: Sizes,
    /// Sends the messages of a folder of .eml files, a Maildir or an mbox, in turn, in place of generated ones. Line ends
    /// become CRLF, an identity is put on top. Octets above 127 are announced with BODY=8BITMIME.
    #[arg(long, value_name = "PATH", conflicts_with = "size", help_heading = "What is sent")]
    pub corpus: Option<PathBuf>,
    /// Messages on a connection before QUIT and a new one; "endless" or 0 keeps the connections, 1 makes one for each
    /// message.
    #[arg(
        long,
        value_name = "N|endless",
        default_value = "endless",
        help_heading = "Connections"
    )]
    pub per_connection: PerConnection,
    /// Recipients of each message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "What is sent")]
    pub recipients: u32,
    /// What leaves in one write (RFC 2920). off: a command. on: MAIL, RCPT and DATA. group: also the content with MAIL,
    /// RCPT and DATA of the next message behind it, or with QUIT when there is none (section 3.1); a transaction then
    /// begins before the last one is answered. Falls back to one command at a time when the server does not offer
    /// PIPELINING, and says so at the end. With --bdat, group is the same as on: BDAT takes the content into the write
    /// of MAIL and RCPT.
    #[arg(long, value_enum, default_value_t = Pipelining::On, help_heading = "Connections")]
    pub pipelining: Pipelining,
    /// Never sleeps: looks again at once when there is nothing to do, so that the server need not wake the generator,
    /// which costs the server an interrupt to another core. Needs a core of its own, named with --core; the generator's
    /// CPU time is then told without that in which there was nothing to do.
    #[arg(long, requires = "core", help_heading = "The generator")]
    pub busy_poll: bool,
    /// BDAT in place of DATA; the server must offer CHUNKING (RFC 3030).
    #[arg(long, help_heading = "Connections")]
    pub bdat: bool,
    /// Chunks of a content with --bdat, all as long as each other.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "bdat", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Connections")]
    pub bdat_chunks: u32,
    /// Sender.
    #[arg(long, value_name = "ADDRESS", default_value = "sender@example.org", value_parser = address, help_heading = "What is sent")]
    pub from: String,
    /// Recipient; may be repeated. When --recipients asks for more, a number is put to the local part of the last one.
    #[arg(long, value_name = "ADDRESS", default_value = "someone@example.com", value_parser = address, help_heading = "What is sent")]
    pub to: Vec<String>,
    /// Name given in EHLO.
    #[arg(long, value_name = "NAME", default_value = "client.loadgen.invalid", value_parser = address, help_heading = "What is sent")]
    pub ehlo: String,
    /// Local addresses to connect from, in turn: addresses or ranges of them, separated by commas. Default: what the
    /// kernel chooses for kept connections; 127.0.0.2-127.0.0.20 with --per-connection N to an IPv4 loopback target,
    /// as one address runs out of ports.
    #[arg(long, value_name = "IP[-IP],...", help_heading = "Connections")]
    pub sources: Option<Sources>,
    /// Closes connections with RST (SO_LINGER 0) in place of FIN: leaves no TIME_WAIT behind.
    #[arg(long, value_enum, default_value_t = Switch::Off, help_heading = "Connections")]
    pub rst: Switch,
    /// TCP congestion control of the generator's sockets, such as cubic or reno; default: the system's. Between bbr, cubic
    /// and reno no difference was found on loopback with messages of 4 KB.
    #[arg(long, value_name = "NAME", help_heading = "Connections")]
    pub congestion: Option<String>,
    #[command(flatten)]
    pub protocol: ProtocolFlags,
    /// Being turned away or refused is what this load is about, such as that of clients beyond a limit: it is counted and no
    /// failure, and a client that was turned away tries again a second later. With --messages, a run is given up when
    /// the server has taken no connection for --timeout.
    #[arg(long, help_heading = "Connections")]
    pub refusals_expected: bool,
    /// Longest time without any reply from the server before the run is given up.
    #[arg(long, default_value = "30s", value_parser = duration, help_heading = "Connections")]
    pub timeout: Duration,
    /// Executors that send, a thread each; connections, rate and messages are shared out among them. Default: as many as
    /// --core names, or one.
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "The generator")]
    pub cores: Option<usize>,
    /// Pins the executors to these cores, one each: 1, 0,2 or 0-3.
    #[arg(long, value_name = "CORE[-CORE],...", help_heading = "The generator")]
    pub core: Option<Cores>,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "What comes of it")]
    pub json: Option<PathBuf>,
    /// Writes a page with plots: one file that needs nothing else.
    #[arg(long, value_name = "FILE.html", help_heading = "What comes of it")]
    pub report: Option<PathBuf>,
    /// Writes the latencies of every stage as an HdrHistogram log (V2), in nanoseconds, tagged by stage.
    #[arg(long, value_name = "FILE", help_heading = "What comes of it")]
    pub hdr: Option<PathBuf>,
    /// Exit status 1 when this holds at the end; may be repeated: p99>20ms (of the final reply; from the planned time in an
    /// open loop), STAGE:p99>20ms, rate<1000, failures>0, failures>0.1%, server-cpu>50us. Figures are mean, p50, p75, p90,
    /// p95, p99, p99.9, p99.99 and max.
    #[arg(long, value_name = "FIGURE>LIMIT", help_heading = "What comes of it")]
    pub fail_if: Vec<Threshold>,
    /// Shows nothing while it runs.
    #[arg(long, help_heading = "What comes of it")]
    pub silent: bool,
    /// Writes what became of each message of the whole run, for `loadgen sink --expect` and `loadgen verify`.
    #[arg(long, value_name = "FILE", help_heading = "What comes of it")]
    pub expect: Option<PathBuf>,
    /// The target is not on this machine and I may load it.
    #[arg(long, help_heading = "The generator")]
    pub target_is_mine: bool,
}

impl LoadFlags {
    /// What of the load shapes the figures, to be kept with them.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "connections": self.connections, "messages": self.messages, "size": self.size.to_string(), "corpus": self.corpus,
            "seconds": self.duration.as_secs_f64(), "per_connection": self.per_connection.0,
            "recipients": self.recipients, "pipelining": format!("{:?}", self.pipelining).to_lowercase(),
            "busy_poll": self.busy_poll, "bdat_chunks": self.bdat.then_some(self.bdat_chunks), "protocol": self.protocol.to_json(),
            "refusals_expected": self.refusals_expected, "rst": self.rst == Switch::On, "congestion": self.congestion, "rate": self.rate,
            "ramp_seconds": self.ramp.as_secs_f64(), "executors": self.placements().map_or(0, |cores| cores.len()),
        })
    }

    /// Why these flags do not go together, or with this target, where clap cannot tell.
    pub fn check(&self, target: SocketAddr) -> Result<(), String> {
        self.permitted(target)?;
        self.sources_for(target)?;
        self.placements()?;
        let letters = self.to.iter().chain([&self.from, &self.ehlo]);
        match letters
            .into_iter()
            .find(|text| !text.is_ascii() && !self.protocol.smtputf8)
        {
            Some(text) => Err(format!("{text}: letters beyond ASCII need --smtputf8")),
            None => Ok(()),
        }
    }

    /// Socket options of every connection.
    pub fn socket_manner(&self) -> connect::Manner {
        connect::Manner {
            reset: self.rst == Switch::On,
            congestion: self.congestion.clone(),
        }
    }

    /// Why the target may not be loaded, if it may not.
    fn permitted(&self, target: SocketAddr) -> Result<(), String> {
        if target.ip().is_loopback() || self.target_is_mine {
            return Ok(());
        }
        Err(format!(
            "{target} is not on this machine (127.0.0.0/8 or [::1]); --target-is-mine says that you may load it"
        ))
    }

    /// The core of each executor; none for one that goes where the kernel likes.
    pub fn placements(&self) -> Result<Vec<Option<usize>>, String> {
        let named = self.core.as_ref().map_or(&[][..], |Cores(cores)| cores.as_slice());
        let executors = self.cores.unwrap_or(named.len().max(1)).min(self.connections);
        let allowed = sched_getaffinity(None).map_err(|error| format!("the cores of this process: {error}"))?;
        for &core in named {
            if core >= CpuSet::MAX_CPU || !allowed.is_set(core) {
                return Err(format!("--core {core}: there is no such core for this process"));
            }
        }
        match named.len() {
            0 => Ok(vec![None; executors]),
            cores if cores >= executors => Ok(named.iter().copied().take(executors).map(Some).collect()),
            cores => Err(format!(
                "--cores {executors} executors need as many cores, and --core names {cores}"
            )),
        }
    }

    /// Local addresses to connect from; empty leaves the choice to the kernel.
    pub fn sources_for(&self, target: SocketAddr) -> Result<Vec<IpAddr>, String> {
        let sources = match &self.sources {
            Some(Sources(addresses)) => addresses.clone(),
            None if self.per_connection.0 > 0 && target.is_ipv4() && target.ip().is_loopback() => (2..=20)
                .map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
                .collect(),
            None => Vec::new(),
        };
        match sources.iter().find(|source| source.is_ipv4() != target.is_ipv4()) {
            Some(source) => Err(format!(
                "--sources {source} cannot connect to {target}: one is IPv4, the other IPv6"
            )),
            None => Ok(sources),
        }
    }
}

#[cfg(test)]
mod tests;
