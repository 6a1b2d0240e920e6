//! Messages a second into Maildirs: the pool beside a naive delivery in the same run.
//!
//! `cargo bench --bench maildir [-- THREADS...]`; the disk is the one that holds the target directory. Naive is what a
//! thread of its own does for each message: create, write, fsync, rename, fsync the directory.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use postern::maildir::{Done, Draft, FilePlan, Form, Plan, Pool, ReplyTo, Request, THREADS, Ticket};

/// How long each measurement lasts.
const SPAN: Duration = Duration::from_millis(700);
/// Octets of a message.
const SIZE: usize = 4096;

fn main() {
    let threads: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let threads = if threads.is_empty() { vec![THREADS] } else { threads };
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("maildir-bench");
    let content = content();
    println!("{SIZE} octets a message; messages/s and the median and 99th percentile of the wait for one, in us");
    println!(
        "{:>8} {:>9} {:>9} {:>24} {:>24}",
        "threads", "in flight", "Maildirs", "pool", "naive"
    );
    for &threads in &threads {
        for in_flight in [1, 64] {
            for maildirs in [1, 64] {
                let _ = fs::remove_dir_all(&root);
                let pool = batched(&root, threads, in_flight, maildirs, &content);
                let _ = fs::remove_dir_all(&root);
                let naive = naive(&root, threads, in_flight, maildirs, &content);
                println!(
                    "{threads:>8} {in_flight:>9} {maildirs:>9} {:>24} {:>24}",
                    show(pool),
                    show(naive)
                );
            }
        }
    }
    let _ = fs::remove_dir_all(&root);
}

fn content() -> Vec<u8> {
    let mut content = b"Subject: bench\r\n\r\n".to_vec();
    while content.len() < SIZE - 72 {
        content.extend_from_slice(b"The quick brown fox jumps over the lazy dog, and does so line by line.\r\n");
    }
    content
}

/// The waits of all messages, sorted later.
fn show(mut waits: Vec<Duration>) -> String {
    waits.sort_unstable();
    let at = |part: f64| {
        waits
            .get((waits.len() as f64 * part) as usize)
            .copied()
            .unwrap_or_default()
            .as_micros()
    };
    format!(
        "{:>8.0} {:>7} {:>7}",
        waits.len() as f64 / SPAN.as_secs_f64(),
        at(0.5),
        at(0.99)
    )
}

fn batched(root: &Path, threads: usize, in_flight: usize, maildirs: usize, content: &[u8]) -> Vec<Duration> {
    let pool = Pool::start(threads, root).expect("a directory to work in");
    let (inbox, answers) = mpsc::channel();
    let callback: Arc<dyn Fn(Ticket, Done) + Send + Sync> = Arc::new(move |ticket, done| {
        let _ = inbox.send((ticket, done));
    });
    let (mut start, mut waits, mut begun) = (Instant::now(), Vec::new(), Vec::new());
    let submit = |ticket: usize, buffer: Vec<u8>| {
        let mut plan = Plan::new("bench", Form::Dotted, false);
        plan.files.push(FilePlan {
            maildir: maildir(root, ticket % maildirs),
            head: b"Return-Path: <>\n".to_vec(),
        });
        plan.queue_id = ticket.to_string().into();
        let reply = ReplyTo {
            callback: Arc::clone(&callback),
            ticket: Ticket(ticket as u64),
        };
        pool.submit(Request::Commit(Draft::new(plan), buffer), reply);
        Instant::now()
    };
    // the first message to each Maildir makes it; that is not what is measured
    for ticket in 0..in_flight.max(maildirs) {
        begun.push(submit(ticket, content.to_vec()));
    }
    let warm = 2 * in_flight.max(maildirs);
    let mut outstanding = begun.len();
    while let Ok((ticket, Done::Committed(result, mut buffer))) = answers.recv() {
        result.expect("delivered");
        outstanding -= 1;
        if begun.len() > warm {
            if start.elapsed() >= SPAN {
                break;
            }
            waits.push(begun[ticket.0 as usize].elapsed());
        } else {
            start = Instant::now();
        }
        while outstanding < in_flight {
            buffer.clear();
            buffer.extend_from_slice(content);
            begun.push(submit(begun.len(), std::mem::take(&mut buffer)));
            outstanding += 1;
        }
    }
    pool.shutdown();
    waits
}

fn naive(root: &Path, threads: usize, in_flight: usize, maildirs: usize, content: &[u8]) -> Vec<Duration> {
    let content: Vec<u8> = content.iter().copied().filter(|octet| *octet != b'\r').collect();
    for index in 0..maildirs {
        for name in ["tmp", "new"] {
            fs::create_dir_all(maildir(root, index).join(name)).expect("a directory");
        }
    }
    // in flight waits for a thread, as it would in a pool's queue
    let (start, count, waits) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads.min(in_flight) {
            scope.spawn(|| {
                while start.elapsed() < SPAN {
                    let begun = Instant::now();
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    deliver(&maildir(root, number % maildirs), number, &content);
                    let turns = in_flight.div_ceil(threads.min(in_flight)) as u32;
                    waits.lock().expect("a lock").push(begun.elapsed() * turns);
                }
            });
        }
    });
    waits.into_inner().expect("a lock")
}

fn deliver(maildir: &Path, number: usize, content: &[u8]) {
    let tmp = maildir.join("tmp").join(number.to_string());
    let mut file = File::create_new(&tmp).expect("a file");
    file.write_all(content).expect("room");
    file.sync_all().expect("a sync");
    fs::rename(&tmp, maildir.join("new").join(number.to_string())).expect("a rename");
    File::open(maildir.join("new"))
        .and_then(|new| new.sync_all())
        .expect("a sync");
}

fn maildir(root: &Path, index: usize) -> PathBuf {
    root.join("mail").join(index.to_string())
}
