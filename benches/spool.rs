//! Messages a second made durable: the spool beside one file a message in the same run.
//!
//! `cargo bench --bench spool [-- IN_FLIGHT...]`; the disk is the one that holds the target directory. The spool is driven as
//! a shard drives it: one thread gathers, another writes and syncs, a third prepares segments. A message is settled as soon as
//! it is durable and the next one comes. One file a message is what a thread of its own does for each of those in flight (at
//! most 64): create, write, fsync; and beside that with rename and fsync of the directory, as a queue that may never show half
//! a message has to.

#[path = "../tests/disk/files.rs"]
mod files;

use std::{
    borrow::Cow,
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use files::Files;
use postern::smtp::Form;
use postern::smtp::envelope::{Envelope, MailParameters, RcptParameters, Recipient};
use postern::smtp::path::{ForwardPath, Mailbox, ReversePath};
use postern::spool::{Content, Failure, Head, News, QueueId, Settings, Spool, Task, Work, directory};

/// How long each measurement lasts.
const SPAN: Duration = Duration::from_secs(1);
/// Octets of a message.
const SIZE: usize = 4096;
/// Threads that each write a file at a time.
const THREADS_MOST: usize = 64;

fn main() {
    let in_flight: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let in_flight = if in_flight.is_empty() {
        vec![1, 8, 64, 512]
    } else {
        in_flight
    };
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spool-bench");
    println!(
        "{SIZE} octets a message; messages/s, and of the spool the median wait for one in us, octets written for each octet"
    );
    println!("of mail, and syncs for each message");
    println!(
        "{:>9} {:>9} {:>8} {:>8} {:>8} {:>12} {:>22}",
        "in flight", "spool", "wait", "octets", "syncs", "file, fsync", "file, rename, directory"
    );
    for in_flight in in_flight {
        let _ = fs::remove_dir_all(&root);
        let spool = spool(&root, in_flight);
        let _ = fs::remove_dir_all(&root);
        let plain = naive(&root, in_flight, false);
        let _ = fs::remove_dir_all(&root);
        let safe = naive(&root, in_flight, true);
        println!(
            "{in_flight:>9} {:>9.0} {:>8} {:>8.2} {:>8.3} {plain:>12.0} {safe:>22.0}",
            spool.rate, spool.wait, spool.octets, spool.syncs
        );
    }
    let _ = fs::remove_dir_all(&root);
}

struct Measured {
    rate: f64,
    wait: u128,
    octets: f64,
    syncs: f64,
}

fn spool(root: &Path, in_flight: usize) -> Measured {
    let own = directory::create(root).expect("a directory");
    let mut spool = Spool::new(Settings::default(), own.salt());
    let content = content();
    let head = head();
    let (done, results) = mpsc::channel();
    thread::scope(|scope| {
        let [(write, writes), (prepare, preparations)] = [(); 2].map(|()| mpsc::channel::<Work>());
        for works in [writes, preparations] {
            let (done, mut files) = (done.clone(), Files::new(own.path()));
            scope.spawn(move || {
                for work in works {
                    let result = files.perform(&work.task).map_err(Failure::from);
                    if done.send((work.id, result)).is_err() {
                        break;
                    }
                }
            });
        }
        let (mut next, mut octets, mut syncs, mut waits) = (0, 0, 0, Vec::new());
        let mut begun: Vec<Instant> = Vec::new();
        let mut begin = |spool: &mut Spool, begun: &mut Vec<Instant>| {
            let id = QueueId::from_number(next);
            next += 1;
            begun.push(Instant::now());
            spool.begin(id, &head);
            spool.append(id, &content);
            spool.commit(id, Content::default());
        };
        (0..in_flight).for_each(|_| begin(&mut spool, &mut begun));
        let mut start = None;
        loop {
            while let Some(work) = spool.next_work() {
                match &work.task {
                    Task::Write { octets: written, .. } => octets += written.len(),
                    Task::Sync { .. } => syncs += 1,
                    _ => {}
                }
                let place = if matches!(work.task, Task::Write { .. } | Task::Sync { .. }) {
                    &write
                } else {
                    &prepare
                };
                place.send(work).expect("a thread");
            }
            let (id, result) = results.recv().expect("an answer");
            spool.done(id, result);
            while let Some(news) = spool.next_news() {
                let News::Durable(id) = news else { panic!("{news:?}") };
                // What came first also waited for the first segment to be made.
                let started = *start.get_or_insert_with(|| {
                    (octets, syncs) = (0, 0);
                    Instant::now()
                });
                waits.push(begun[id.number() as usize].elapsed());
                spool.settle(id);
                if started.elapsed() < SPAN {
                    begin(&mut spool, &mut begun);
                }
            }
            if start.is_some_and(|start: Instant| start.elapsed() >= SPAN) {
                break;
            }
        }
        let messages = waits.len() as f64;
        waits.sort_unstable();
        Measured {
            rate: messages / SPAN.as_secs_f64(),
            wait: waits[waits.len() / 2].as_micros(),
            octets: octets as f64 / (messages * SIZE as f64),
            syncs: f64::from(syncs) / messages,
        }
    })
}

/// Messages a second, one file each.
fn naive(root: &Path, in_flight: usize, safe: bool) -> f64 {
    fs::create_dir_all(root).expect("a directory");
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let content = content();
    thread::scope(|scope| {
        for thread in 0..in_flight.min(THREADS_MOST) {
            let (count, stop, content) = (&count, &stop, &content);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let kept = root.join(format!("{thread}-{number}"));
                    let draft = if safe {
                        root.join(format!("{thread}-{number}.draft"))
                    } else {
                        kept.clone()
                    };
                    let mut file = File::create(&draft).expect("a file");
                    file.write_all(content).expect("room");
                    file.sync_all().expect("synced");
                    if safe {
                        fs::rename(&draft, &kept).expect("renamed");
                        File::open(root).and_then(|root| root.sync_all()).expect("synced");
                    }
                    fs::remove_file(&kept).expect("removed");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(SPAN);
        stop.store(true, Ordering::Relaxed);
    });
    count.into_inner() as f64 / SPAN.as_secs_f64()
}

fn content() -> Vec<u8> {
    let mut content = b"Subject: bench\r\n\r\n".to_vec();
    while content.len() < SIZE {
        content.extend_from_slice(b"The quick brown fox jumps over the lazy dog, and does so line by line.\r\n");
    }
    content.truncate(SIZE);
    content
}

fn head() -> Head<'static> {
    let mailbox = |text: &str| Mailbox::parse(text).expect("a mailbox");
    Head {
        envelope: Cow::Owned(Envelope {
            reverse_path: ReversePath::Mailbox(mailbox("sender@origin.test")),
            mail: MailParameters::default(),
            recipients: vec![Recipient {
                forward_path: ForwardPath::Mailbox(mailbox("recipient@destination.test")),
                parameters: RcptParameters::default(),
            }],
        }),
        fields: Cow::Borrowed(
            b"Received: from client.test ([192.0.2.7])\r\n\tby mx.test (postern) with ESMTP id x;\r\n",
        ),
        form: Form::Dotted,
        arrived: 0,
        session: QueueId::from_number(0),
        client: None,
        hello: Cow::Borrowed("client.test"),
        user: None,
    }
}
