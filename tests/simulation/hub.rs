//! A connection to a hub: our client on one side, a session that plays the hub on the other, and what may befall them.

use std::sync::Arc;
use std::time::Instant;

use postern::relay::next_hop::Round;
use postern::smtp::client::{
    Client, Dialect, HopReply, Outcome, Outgoing, Step as ClientStep, Terms as ClientTerms, Timeouts, TlsUse,
};
use postern::smtp::extension::Offered;
use postern::smtp::limits::Limits;
use postern::smtp::oxsmtp::Reply;
use postern::smtp::session::{Custody, Question, Session, Step, Terms, Verdict};
use postern::smtp::{BareNewline, Edition, Role};
use postern::spool::QueueId;

use crate::disk::Chance;
use crate::edge::Parcel;
use crate::ledger::Ledger;

/// An attempt of a group, over one connection or several.
pub struct Attempt {
    pub id: QueueId,
    pub group: usize,
    pub recipients: Vec<u32>,
    pub round: Round<u8>,
    pub link: Option<Link>,
}

/// One connection.
pub struct Link {
    pub address: u8,
    client: Client,
    hub: Session,
    to_hub: Vec<u8>,
    to_client: Vec<u8>,
    stored: Vec<u8>,
    sent: bool,
    /// The hub has taken the message; our client has not heard of it yet.
    taken: Option<u64>,
}

/// What has come of a step.
pub enum Came {
    Nothing,
    Over(Vec<Outcome>),
    /// This hub cannot be spoken to.
    Failed(HopReply),
    Misfit(HopReply),
}

impl Link {
    pub fn new(address: u8, now: Instant) -> Link {
        let edition = Edition::Y2021;
        let mut limits = Limits::of(Role::Relay);
        limits.tarpit = std::time::Duration::ZERO;
        let terms = Terms {
            auth: Default::default(),
            hostname: "hub.test".into(),
            edition,
            limits,
            offered: Offered::of(edition, &[], false),
            bare_newline: BareNewline::Refuse,
            require_tls: false,
        };
        let mut hub = Session::new(Arc::new(terms), "192.0.2.1".parse().unwrap(), now);
        hub.greet(now);
        let terms = ClientTerms {
            dialect: Dialect::Smtp,
            hello: "edge.test".into(),
            tls: TlsUse::Opportunistic,
            implicit_tls: false,
            credentials: None,
            timeouts: Timeouts::default(),
        };
        Link {
            address,
            client: Client::new(Arc::new(terms), now),
            to_client: std::mem::take(hub.output()),
            hub,
            to_hub: Vec::new(),
            stored: Vec::new(),
            sent: false,
            taken: None,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.client.deadline()
    }

    /// Some octets go one way or the other. `trouble`: how often in a hundred something is refused for now.
    pub fn step(
        &mut self,
        parcel: &Parcel,
        recipients: &[u32],
        now: Instant,
        trouble: usize,
        chance: &mut Chance,
        ledger: &mut Ledger,
    ) -> Came {
        if !self.to_hub.is_empty() && (self.to_client.is_empty() || chance.coin()) {
            self.run_hub(now, trouble, chance, ledger);
            return Came::Nothing;
        }
        let length = match chance.below(4) {
            0 => 1 + chance.below(self.to_client.len()),
            _ => self.to_client.len(),
        };
        let input: Vec<u8> = self.to_client.drain(..length.min(self.to_client.len())).collect();
        self.run_client(&input, parcel, recipients, now)
    }

    /// The connection breaks. What the hub did not say in time is not known.
    pub fn breaks(&mut self, parcel: &Parcel, recipients: &[u32], now: Instant, ledger: &mut Ledger) -> Came {
        if let Some(token) = self.taken.take() {
            ledger.entry(token).may_repeat = true;
        }
        self.hub.abandon();
        self.client.lost("the connection broke");
        self.run_client(&[], parcel, recipients, now)
    }

    pub fn expires(&mut self, parcel: &Parcel, recipients: &[u32], now: Instant, ledger: &mut Ledger) -> Came {
        if self.client.deadline().is_none_or(|deadline| now < deadline) {
            return Came::Nothing;
        }
        if let Some(token) = self.taken.take() {
            ledger.entry(token).may_repeat = true;
        }
        self.client.expire(now);
        self.run_client(&[], parcel, recipients, now)
    }

    fn run_client(&mut self, input: &[u8], parcel: &Parcel, recipients: &[u32], now: Instant) -> Came {
        let mut rest = input;
        loop {
            let (used, step) = self.client.advance(rest, now);
            rest = &rest[used..];
            match step {
                ClientStep::Read => {
                    self.to_hub.append(self.client.output());
                    // An unfinished line is shown again with more behind it.
                    self.to_client.splice(..0, rest.iter().copied());
                    return Came::Nothing;
                }
                ClientStep::Ready if self.sent => panic!("ready again without an outcome"),
                ClientStep::Ready => {
                    let indices: Vec<usize> = recipients.iter().map(|&r| r as usize).collect();
                    let outgoing = Outgoing {
                        envelope: &parcel.envelope,
                        recipients: &indices,
                        form: parcel.form,
                        size: parcel.size() + parcel.fields.len() as u64,
                        head: &parcel.fields,
                        eight_bit: false,
                        bare_newline: false,
                    };
                    self.sent = true;
                    if let Err(misfit) = self.client.send(&outgoing, now) {
                        return Came::Misfit(misfit.reply());
                    }
                }
                ClientStep::Content => self.client.content(&parcel.content, true, now),
                ClientStep::Done => {
                    self.taken = None;
                    return Came::Over(self.client.take_outcomes());
                }
                ClientStep::Close => {
                    let failure = self.client.failure().expect("an end without a reason");
                    return Came::Failed(failure.reply.clone());
                }
                ClientStep::Handshake => panic!("nobody offered TLS"),
                ClientStep::Ask => panic!("nobody has credentials"),
            }
        }
    }

    fn run_hub(&mut self, now: Instant, trouble: usize, chance: &mut Chance, ledger: &mut Ledger) {
        let mut input = std::mem::take(&mut self.to_hub);
        loop {
            let (used, step) = self.hub.advance(&input, now);
            if let Step::Store(range) = &step {
                self.stored.extend_from_slice(&input[range.clone()]);
            }
            input.drain(..used);
            match step {
                Step::Read | Step::Close => break,
                Step::Send | Step::Store(_) => {}
                Step::Ask(Question::Mail) => self.hub.answer(Verdict::Accept, now),
                Step::Ask(Question::Rcpt) => {
                    let path = self.hub.forward_path_asked().unwrap().as_str().to_owned();
                    let verdict = if path.starts_with("never") {
                        Verdict::Refuse(Reply::UserUnknown)
                    } else if chance.below(100) < trouble {
                        Verdict::Refuse(Reply::TryLater)
                    } else {
                        Verdict::Accept
                    };
                    self.hub.answer(verdict, now);
                }
                Step::Discard => self.stored.clear(),
                Step::Commit if chance.below(100) < trouble => {
                    self.stored.clear();
                    self.hub.refuse(Reply::TryLater, now);
                }
                Step::Commit => self.take(now, ledger),
                Step::Pause { .. } | Step::Handshake | Step::Ask(Question::Credentials | Question::StartTls) => {
                    panic!("a hub does neither")
                }
            }
            let _ = self.hub.take_report();
        }
        self.to_client.append(self.hub.output());
        self.to_hub = input;
    }

    fn take(&mut self, now: Instant, ledger: &mut Ledger) {
        let content = String::from_utf8(std::mem::take(&mut self.stored)).unwrap();
        let recipients: Vec<String> = self
            .hub
            .envelope()
            .unwrap()
            .recipients
            .iter()
            .map(|r| r.forward_path.as_str().to_owned())
            .collect();
        let field = |name: &str| {
            content
                .lines()
                .filter_map(|line| line.strip_prefix(name).map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let tokens = field("Token: ");
        let token: u64 = tokens.first().expect("a message without its token").parse().unwrap();
        if content.contains("report-type=delivery-status") {
            if field("Action: ").iter().any(|action| action == "failed") {
                for recipient in field("Final-Recipient: rfc822; ") {
                    ledger.entry(token).reported.insert(recipient);
                }
            }
        } else {
            for recipient in recipients {
                ledger.delivered(token, &recipient);
            }
            self.taken = Some(token);
        }
        ledger.note(token);
        self.hub.acknowledge(Custody::Delivered, "0000000000000", now);
    }
}
