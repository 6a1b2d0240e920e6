//! The command line of `loadgen sink`. Pure data; used before anything is opened.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::fault::{Faults, Plan, Stage};
use super::socket::Address;
use super::terms::Offer;
use crate::flags::duration;

/// Takes mail and forgets it: the next hop in a measurement of relaying, and a witness of what arrives.
///
/// Checks the identity of every message of this generator (copies, alteration), and with --expect also loss. Ends with
/// SIGINT, SIGTERM, --messages, --duration or --quiet, and prints what it has seen.
///
/// Faults are WHAT[:SHARE], several separated by commas. WHAT is delay=TIME, defer[=CODE], refuse[=CODE], drop (closes),
/// reset (RST), stall (says nothing any more), cut (half of the reply), garbage (no reply at all), lines=N (the proper reply
/// in N lines), drop-after and reset-after (behind the proper reply); at the end also forget, twice and alter, which make
/// the sink itself lie, to see that it is noticed. TIME is 10ms, 10ms..50ms (uniform), exp(20ms) (mean) or
/// lognormal(20ms,1) (median, deviation of the logarithm). SHARE is 5% (by chance) or 1/20 (every twentieth, exactly, of
/// each thread). Example: --rcpt defer:5%,refuse:1% --end delay=10ms..50ms:20%,reset-after:1/1000
///
/// Exit status: 0 when all is well; 1 when anything was lost, duplicated or altered, or fewer came than --expect-messages.
#[derive(Clone, Debug, Args)]
pub struct SinkFlags {
    /// Where to listen: IP:PORT, smtp://IP:PORT, lmtp://IP:PORT or lmtp+unix:///PATH. Several speak side by side.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:2600")]
    pub addresses: Vec<Address>,
    /// LMTP (RFC 2033) at addresses that do not say what they speak.
    #[arg(long)]
    pub lmtp: bool,
    /// Threads, each with its own listeners and connections.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub cores: u8,
    /// Pins the first thread to this core, the next one to the core after it, and so on.
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
    /// Extensions that are not offered, separated by commas.
    #[arg(long, value_name = "EXTENSION,...", value_delimiter = ',', ignore_case = true)]
    pub without: Vec<Offer>,
    /// Octets of a message, announced with SIZE.
    #[arg(long, value_name = "OCTETS", default_value_t = 1 << 30)]
    pub size_limit: u64,
    /// Name in the greeting.
    #[arg(long, value_name = "NAME", default_value = "sink.loadgen.invalid")]
    pub hostname: String,
    /// Offers STARTTLS, with a certificate made for this run.
    #[arg(long)]
    pub starttls: bool,
    /// Does not look at identities: a little cheaper.
    #[arg(long, conflicts_with_all = ["expect", "expect_messages"])]
    pub blind: bool,

    /// Faults in place of the greeting.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub connect: Option<Faults>,
    /// Faults of EHLO, LHLO and HELO.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub ehlo: Option<Faults>,
    /// Faults of MAIL.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub mail: Option<Faults>,
    /// Faults of RCPT.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub rcpt: Option<Faults>,
    /// Faults of DATA.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub data: Option<Faults>,
    /// Faults while the content comes, after its first octets: delay, drop, reset and stall.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub content: Option<Faults>,
    /// Faults of the final reply; of each of them in LMTP.
    #[arg(long, value_name = "FAULTS", help_heading = "Faults")]
    pub end: Option<Faults>,
    /// Another seed draws other messages for the faults.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Faults")]
    pub seed: u64,

    /// Ends when so many messages were taken and their connections are closed.
    #[arg(long, value_name = "N", help_heading = "When it ends")]
    pub messages: Option<u64>,
    /// Ends after this time.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "When it ends")]
    pub duration: Option<Duration>,
    /// Ends when messages have come and then none for this time.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "When it ends")]
    pub quiet: Option<Duration>,

    /// What a generator wrote with --expect: everything that was accepted there has to have come, and nothing else. May be
    /// repeated; read at the end.
    #[arg(long, value_name = "FILE", help_heading = "What is to arrive")]
    pub expect: Vec<PathBuf>,
    /// So many different messages have to have come.
    #[arg(long, value_name = "N", help_heading = "What is to arrive")]
    pub expect_messages: Option<u64>,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "What is to arrive")]
    pub json: Option<PathBuf>,
}

impl SinkFlags {
    /// The faults of all stages, or why they cannot be.
    pub fn plan(&self) -> Result<Plan, String> {
        let of = |faults: &Option<Faults>| faults.clone().unwrap_or_default();
        let mut plan = Plan {
            connect: of(&self.connect),
            ehlo: of(&self.ehlo),
            mail: of(&self.mail),
            rcpt: of(&self.rcpt),
            data: of(&self.data),
            content: of(&self.content),
            end: of(&self.end),
        };
        for (stage, name) in Stage::ALL {
            if stage != Stage::End && plan.at(stage).is_for_the_end() {
                return Err(format!("--{name}: forget, twice and alter are for --end"));
            }
        }
        if plan.content.needs_a_reply() {
            return Err(
                "--content: no reply is due while the content comes; delay, drop, reset and stall can be".into(),
            );
        }
        Ok(plan)
    }

    /// Extensions that are not offered.
    pub fn withheld(&self) -> Vec<Offer> {
        let mut withheld = self.without.clone();
        if !self.starttls {
            withheld.push(Offer::StartTls);
        }
        // RFC 3030 section 3: BINARYMIME is nothing without CHUNKING.
        if withheld.contains(&Offer::Chunking) {
            withheld.push(Offer::BinaryMime);
        }
        withheld
    }
}
