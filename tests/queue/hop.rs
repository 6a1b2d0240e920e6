//! A next hop that takes every message, or none.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A listening hop; it ends with the process of the test.
pub struct Hop {
    messages: Arc<Mutex<Vec<String>>>,
    pub address: SocketAddr,
}

impl Hop {
    /// Listens on `address`.
    pub fn at(address: SocketAddr) -> Hop {
        let listener = TcpListener::bind(address).unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let address = listener.local_addr().unwrap();
        let taken = messages.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taken = taken.clone();
                std::thread::spawn(move || drop(serve(stream, &taken)));
            }
        });
        Hop { messages, address }
    }

    /// What it has taken: the RCPT commands and the content of each message.
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, taken: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    let mut message = String::new();
    writer.write_all(b"220 hop.test ESMTP\r\n")?;
    while let Some(line) = lines.next() {
        let line = line?;
        let reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "RCPT" => {
                message.push_str(&(line + "\n"));
                "250 2.1.5 OK"
            }
            "DATA" => {
                writer.write_all(b"354 Go on\r\n")?;
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    message.push_str(&(line + "\n"));
                }
                taken.lock().unwrap().push(std::mem::take(&mut message));
                "250 2.0.0 Taken"
            }
            "QUIT" => {
                writer.write_all(b"221 2.0.0 Bye\r\n")?;
                return Ok(());
            }
            _ => "250 2.0.0 OK",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}
