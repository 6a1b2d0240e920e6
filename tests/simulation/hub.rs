//! A connection to a hub: our client on one side; on the other a session that plays the hub, or a scripted one that speaks
//! LMTP; and what may befall them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use postern::relay::next_hop::Round;
use postern::smtp::client::{
    Client, Dialect, HopReply, Outcome, Outgoing, Step as ClientStep, Terms as ClientTerms, Timeouts, TlsUse,
};
use postern::smtp::extension::{Extension, Offered};
use postern::smtp::limits::Limits;
use postern::smtp::oxsmtp::Reply;
use postern::smtp::session::{Custody, Question, Session, Step, Terms, Verdict};
use postern::smtp::{BareNewline, Edition, Role};
use postern::spool::{Extent, QueueId};

use crate::disk::Chance;
use crate::ledger::Ledger;
use crate::lmtp::{Judgement, Lmtp};
use crate::parcel::{Parcel, Shelf};
use crate::sender::undotted;

/// An attempt of a group, over one connection or several.
pub struct Attempt {
    pub id: QueueId,
    pub group: usize,
    pub recipients: Vec<u32>,
    pub round: Round<u8>,
    pub link: Option<Link>,
}

impl Attempt {
    /// For a panic.
    pub fn shown(&self) -> String {
        let link = self.link.as_ref().map(|link| {
            let octets = (link.to_hub.len(), link.to_client.len());
            format!("to {}: {:?}, octets under way {octets:?}", link.address, link.client)
        });
        format!("{} {:?} {link:?}", self.id, self.recipients)
    }
}

/// What a step of a connection needs of the world.
pub struct Surroundings<'a> {
    pub parcel: &'a Parcel,
    pub recipients: &'a [u32],
    pub shelf: Shelf<'a>,
    pub now: Instant,
    /// How often in a hundred something is refused for now.
    pub trouble: usize,
    pub chance: &'a mut Chance,
    pub ledger: &'a mut Ledger,
}

enum Far {
    Smtp(Box<Session>),
    Lmtp(Lmtp),
}

/// One connection.
pub struct Link {
    pub address: u8,
    client: Client,
    far: Far,
    to_hub: Vec<u8>,
    to_client: Vec<u8>,
    stored: Vec<u8>,
    sent: bool,
    /// Content in the spool that is still to be read.
    reading: Option<VecDeque<Extent>>,
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
    /// Every other address takes chunks.
    pub fn new(address: u8, lmtp: bool, now: Instant) -> Link {
        let chunking = address.is_multiple_of(2);
        let mut far = match lmtp {
            true => Far::Lmtp(Lmtp::new(chunking)),
            false => Far::Smtp(hub(chunking, now)),
        };
        let terms = ClientTerms {
            dialect: if lmtp { Dialect::Lmtp } else { Dialect::Smtp },
            hello: "edge.test".into(),
            tls: TlsUse::Opportunistic,
            implicit_tls: false,
            credentials: None,
            timeouts: Timeouts::default(),
        };
        Link {
            address,
            client: Client::new(Arc::new(terms), now),
            to_client: std::mem::take(match &mut far {
                Far::Smtp(hub) => hub.output(),
                Far::Lmtp(hub) => &mut hub.output,
            }),
            far,
            to_hub: Vec::new(),
            stored: Vec::new(),
            sent: false,
            reading: None,
            taken: None,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.client.deadline()
    }

    /// Some octets go one way or the other.
    pub fn step(&mut self, around: &mut Surroundings<'_>) -> Came {
        if !self.to_hub.is_empty() && (self.to_client.is_empty() || around.chance.coin()) {
            let unread = self.to_hub.len();
            self.run_hub(around);
            // Half a line waits for the other half.
            if self.to_hub.len() < unread || !self.to_client.is_empty() {
                return Came::Nothing;
            }
        }
        let length = match around.chance.below(4) {
            0 => 1 + around.chance.below(self.to_client.len()),
            _ => self.to_client.len(),
        };
        let input: Vec<u8> = self.to_client.drain(..length.min(self.to_client.len())).collect();
        self.run_client(&input, around)
    }

    /// The connection breaks. What the hub did not say in time is not known.
    pub fn breaks(&mut self, around: &mut Surroundings<'_>) -> Came {
        self.forgets(around.ledger);
        self.client.lost("the connection broke");
        self.run_client(&[], around)
    }

    pub fn expires(&mut self, around: &mut Surroundings<'_>) -> Came {
        if self.client.deadline().is_none_or(|deadline| around.now < deadline) {
            return Came::Nothing;
        }
        self.forgets(around.ledger);
        self.client.expire(around.now);
        self.run_client(&[], around)
    }

    /// What the hub may have said is not heard any more.
    pub fn forgets(&mut self, ledger: &mut Ledger) {
        if let Some(token) = self.taken.take() {
            ledger.entry(token).may_repeat = true;
        }
    }

    fn run_client(&mut self, input: &[u8], around: &mut Surroundings<'_>) -> Came {
        let mut rest = input;
        let (parcel, now) = (around.parcel, around.now);
        loop {
            let (used, step) = self.client.advance(rest, now);
            rest = &rest[used..];
            match step {
                ClientStep::Read => return self.pause(rest),
                ClientStep::Ready if self.sent => panic!("ready again without an outcome"),
                ClientStep::Ready => {
                    let indices: Vec<usize> = around.recipients.iter().map(|&r| r as usize).collect();
                    let outgoing = Outgoing {
                        envelope: &parcel.envelope,
                        recipients: &indices,
                        form: parcel.form,
                        size: parcel.size + parcel.fields.len() as u64,
                        head: &parcel.fields,
                        eight_bit: false,
                        bare_newline: false,
                    };
                    self.sent = true;
                    if let Err(misfit) = self.client.send(&outgoing, now) {
                        return Came::Misfit(misfit.reply());
                    }
                }
                ClientStep::Content => match self.piece(parcel, &around.shelf) {
                    Some((octets, last)) => {
                        self.client.content(&octets, last, now);
                        if !last {
                            return self.pause(rest);
                        }
                    }
                    None => self.client.lost("the content cannot be read"),
                },
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

    /// What was said goes out. An unfinished line is shown again with more behind it.
    fn pause(&mut self, rest: &[u8]) -> Came {
        self.to_hub.append(self.client.output());
        self.to_client.splice(..0, rest.iter().copied());
        Came::Nothing
    }

    /// The next piece of content, and whether it is the last.
    fn piece(&mut self, parcel: &Parcel, shelf: &Shelf<'_>) -> Option<(Vec<u8>, bool)> {
        if self.reading.is_none()
            && let Some(octets) = &parcel.body
        {
            return Some((octets.clone(), true));
        }
        if self.reading.is_none() {
            self.reading = Some(shelf.spool.extents(parcel.id)?.into());
        }
        let reading = self.reading.as_mut()?;
        let Some(extent) = reading.pop_front() else {
            return Some((Vec::new(), true));
        };
        Some((shelf.read(&extent)?, reading.is_empty()))
    }

    fn run_hub(&mut self, around: &mut Surroundings<'_>) {
        match &mut self.far {
            Far::Smtp(_) => self.run_smtp(around),
            Far::Lmtp(hub) => {
                let (chance, trouble) = (&mut *around.chance, around.trouble);
                let mut judge = |path: &str, at_end: bool| match path.split(|c: char| c.is_ascii_digit()).next() {
                    Some("never") if !at_end => Judgement::Never,
                    Some("full") if at_end => Judgement::Never,
                    _ if chance.below(100) < trouble => Judgement::Later,
                    _ => Judgement::Yes,
                };
                let kept = hub.advance(&mut self.to_hub, &mut judge);
                self.to_client.append(&mut hub.output);
                for kept in kept {
                    self.taken = around.ledger.arrived(&kept.content, &kept.recipients).or(self.taken);
                }
            }
        }
    }

    fn run_smtp(&mut self, around: &mut Surroundings<'_>) {
        let Far::Smtp(hub) = &mut self.far else { return };
        let (now, trouble) = (around.now, around.trouble);
        let mut input = std::mem::take(&mut self.to_hub);
        loop {
            let (used, step) = hub.advance(&input, now);
            if hub.take_report().is_some() {
                self.stored.clear();
            }
            if let Step::Store(range) = &step {
                self.stored.extend_from_slice(&input[range.clone()]);
            }
            input.drain(..used);
            match step {
                Step::Read | Step::Close => break,
                Step::Send | Step::Store(_) => {}
                Step::Ask(Question::Mail) => hub.answer(Verdict::Accept, now),
                Step::Ask(Question::Rcpt) => {
                    let path = hub.forward_path_asked().unwrap().as_str().to_owned();
                    let verdict = if path.starts_with("never") || path.starts_with("full") {
                        Verdict::Refuse(Reply::UserUnknown)
                    } else if around.chance.below(100) < trouble {
                        Verdict::Refuse(Reply::TryLater)
                    } else {
                        Verdict::Accept
                    };
                    hub.answer(verdict, now);
                }
                Step::Discard => self.stored.clear(),
                Step::Commit if around.chance.below(100) < trouble => {
                    self.stored.clear();
                    hub.refuse(Reply::TryLater, now);
                }
                Step::Commit => {
                    let mut content = std::mem::take(&mut self.stored);
                    if !hub.is_chunked() {
                        content = undotted(&content);
                    }
                    let recipients = &hub.envelope().unwrap().recipients;
                    let recipients: Vec<String> =
                        recipients.iter().map(|r| r.forward_path.as_str().to_owned()).collect();
                    self.taken = around.ledger.arrived(&content, &recipients);
                    hub.acknowledge(Custody::Delivered, "0000000000000", now);
                }
                Step::Pause { .. } | Step::Handshake | Step::Ask(Question::Credentials | Question::StartTls) => {
                    panic!("a hub does neither")
                }
            }
        }
        self.to_client.append(hub.output());
        self.to_hub = input;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Far::Smtp(hub) = &mut self.far {
            hub.abandon();
        }
    }
}

fn hub(chunking: bool, now: Instant) -> Box<Session> {
    let edition = Edition::Y2021;
    let mut limits = Limits::of(Role::Relay);
    limits.tarpit = std::time::Duration::ZERO;
    let off: &[Extension] = if chunking { &[] } else { &[Extension::Chunking] };
    let terms = Terms {
        auth: Default::default(),
        hostname: "hub.test".into(),
        edition,
        limits,
        offered: Offered::of(edition, off, false),
        bare_newline: BareNewline::Refuse,
        require_tls: false,
    };
    let mut hub = Box::new(Session::new(Arc::new(terms), "192.0.2.1".parse().unwrap(), now));
    hub.greet(now);
    hub
}
