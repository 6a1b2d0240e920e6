//! A name server that says what the test wants.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What the name server says to a question.
#[derive(Clone)]
pub enum Says {
    Addresses(Vec<[u8; 4]>),
    /// Type, time to live in seconds, data.
    Records(Vec<(u16, u32, Vec<u8>)>),
    NoSuchName,
    NoAddress,
    ServerFailure,
    Refused,
    Garbage,
    Nothing,
}
use Says::*;

pub const A: u16 = 1;
pub const MX: u16 = 15;
pub const AAAA: u16 = 28;

/// A name server on a thread of its own, until dropped.
pub struct NameServer {
    pub at: SocketAddr,
    pub asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NameServer {
    /// One that says the same to a question of any type.
    pub fn start(says: impl Fn(&str) -> Says + Send + 'static) -> NameServer {
        NameServer::by_type(move |name, _| says(name))
    }

    /// One that is told the type of the question too.
    pub fn by_type(says: impl Fn(&str, u16) -> Says + Send + 'static) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (at, asked, stop) = (
            socket.local_addr().unwrap(),
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (heard, stopped) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut packet) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (name, end) = name_of(&packet[..n]);
                heard.lock().unwrap().push(name.clone());
                let kind = u16::from_be_bytes([packet[end - 4], packet[end - 3]]);
                if let Some(reply) = reply(&packet[..end], says(&name, kind)) {
                    socket.send_to(&reply, from).unwrap();
                }
            }
        });
        NameServer {
            at,
            asked,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(&[0; 12], self.at)
            .unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The name in a question and where the question ends (RFC 1035 section 4.1).
fn name_of(packet: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        name.push_str(std::str::from_utf8(&packet[at + 1..end]).unwrap());
        name.push('.');
        at = end;
    }
    (name.to_ascii_lowercase(), at + 5)
}

/// A name as it stands in data.
pub fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    wire.push(0);
    wire
}

fn reply(question: &[u8], says: Says) -> Option<Vec<u8>> {
    let (code, records) = match says {
        Addresses(addresses) => (
            0,
            addresses.into_iter().map(|address| (A, 60, address.to_vec())).collect(),
        ),
        Records(records) => (0, records),
        NoAddress => (0, vec![]),
        ServerFailure => (2, vec![]),
        NoSuchName => (3, vec![]),
        Refused => (5, vec![]),
        Garbage => return Some(vec![question[0], question[1], 0x80, 0xff, 0xff]),
        Nothing => return None,
    };
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut packet = question[..2].to_vec();
    packet.extend([0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0]);
    packet.extend(&question[12..]);
    for (kind, fresh, data) in records {
        packet.extend([0xc0, 12]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(fresh.to_be_bytes());
        packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        packet.extend(data);
    }
    Some(packet)
}
