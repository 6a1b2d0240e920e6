//! The socket on which an operator's commands reach a running edge: a question and an answer a connection, a line each.
//!
//! Promises: only the user that the edge runs as may connect; a bounded number of connections, each of which lives for
//! seconds; a shard that says nothing in time is named, and holds up nobody else. Lives on the control thread.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::log::{Level, Log};
use crate::lookup::operator::{
    Answer, MAX_LISTED, MAX_QUESTION, Message, Question, Reply, ReplyTo, SOCKET, read_question, to_line,
};

/// Connections at once; more wait in the backlog.
const CONNECTIONS: usize = 4;
const BACKLOG: i32 = 16;
/// How long a question may take to come, and an answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a shard may take to answer.
const SHARD_PATIENCE: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted.
const REST: Duration = Duration::from_millis(100);
/// Messages that a page asks of a shard at least, however many shards there are.
const LEAST_LISTED: usize = 16;

/// Brings a question to a shard, by its number. Called on the control thread: must not block.
pub type Ask = Arc<dyn Fn(usize, Question, ReplyTo) + Send + Sync>;

/// What the socket is served with.
pub struct Operator {
    /// From [`Place::bind`].
    pub listener: UnixListener,
    /// How many shards there are.
    pub shards: usize,
    /// The way to them.
    pub ask: Ask,
}

/// The file of the socket. Dropping it removes the file, unless another edge has put its own there meanwhile.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// Makes the socket below `data_dir`. One that is there is replaced: it is a dead edge's, or that of one which this edge
    /// takes over from.
    ///
    /// # Errors
    ///
    /// A sentence that names the path.
    pub fn bind(data_dir: &Path) -> Result<(Place, UnixListener), String> {
        let path = data_dir.join(SOCKET);
        let bound = (|| {
            let fresh = data_dir.join(format!("{SOCKET}.new"));
            if let Err(error) = std::fs::remove_file(&fresh)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let socket = Socket::new(socket2::Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(&fresh)?)?;
            // Before it listens, so that nobody else can connect in between.
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let file = identity(&fresh)?;
            std::fs::rename(&fresh, &path)?;
            Ok((file, UnixListener::from(socket)))
        })();
        match bound {
            Ok((file, listener)) => Ok((Place { path, file }, listener)),
            Err(error) => Err(format!("cannot make the socket {}: {error}", path.display())),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Which file it is, whatever its name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Serves, for ever.
pub async fn serve(operator: Operator, log: Log) {
    let Operator { listener, shards, ask } = operator;
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            return log.event(
                Level::Error,
                "the operator's socket cannot be served",
                &[("error", &error)],
            );
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let ask = ask.clone();
                tokio::spawn(async move {
                    // Whoever asked sees that the connection ends without an answer.
                    let _ = attend(stream, shards, &ask).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn attend(stream: UnixStream, shards: usize, ask: &Ask) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_QUESTION));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let answer = match read_question(&line) {
        Some(question) => answer(question, shards, ask).await,
        None => Answer {
            now: unix(),
            silent: Vec::new(),
            reply: Reply::Misunderstood,
        },
    };
    let mut line = to_line(&answer);
    line.push('\n');
    timeout(PATIENCE, writer.write_all(line.as_bytes())).await?
}

/// Asks every shard, and puts together what they say: a message is on one of them, whose word goes before all others.
async fn answer(question: Question, shards: usize, ask: &Ask) -> Answer {
    let question = match question {
        Question::List { after, most } => Question::List {
            after,
            most: (most.min(MAX_LISTED) / shards.max(1)).max(LEAST_LISTED),
        },
        other => other,
    };
    let deadline = Instant::now() + SHARD_PATIENCE;
    let asked: Vec<_> = (0..shards)
        .map(|shard| {
            let (sender, receiver) = oneshot::channel();
            let reply_to = move |reply| drop(sender.send(reply));
            ask(shard, question.clone(), Box::new(reply_to));
            receiver
        })
        .collect();
    let (mut replies, mut silent) = (Vec::new(), Vec::new());
    for (shard, receiver) in asked.into_iter().enumerate() {
        match timeout_at(deadline, receiver).await {
            Ok(Ok(reply)) => replies.push(reply),
            _ => silent.push(shard),
        }
    }
    Answer {
        now: unix(),
        silent,
        reply: together(replies),
    }
}

fn together(replies: Vec<Reply>) -> Reply {
    let (mut pages, mut all) = (Vec::new(), Reply::Unknown);
    for reply in replies {
        all = match (all, reply) {
            (known, Reply::Page { messages, more }) => {
                pages.push((messages, more));
                known
            }
            (Reply::All(a), Reply::All(b)) => Reply::All(a + b),
            (known, Reply::Unknown) => known,
            (_, reply) => reply,
        };
    }
    if pages.is_empty() { all } else { page(pages) }
}

/// One page of those of the shards: in order, and no further than every shard has told.
fn page(pages: Vec<(Vec<Message>, bool)>) -> Reply {
    let ends = pages.iter().filter(|(_, more)| *more);
    let end = ends
        .filter_map(|(messages, _)| messages.last().map(|m| m.id.clone()))
        .min();
    let mut messages: Vec<Message> = pages.into_iter().flat_map(|(messages, _)| messages).collect();
    messages.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(end) = &end {
        messages.retain(|message| message.id <= *end);
    }
    Reply::Page {
        messages,
        more: end.is_some(),
    }
}

fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::operator::Status;

    fn message(id: &str) -> Message {
        Message {
            id: id.to_owned(),
            status: Status::Deferred,
            arrived: 0,
            size: 0,
            attempts: 0,
            next: None,
            sender: String::new(),
            recipient_count: 0,
            recipients: Vec::new(),
            envid: None,
            header: None,
        }
    }

    fn ids(reply: Reply) -> (Vec<String>, bool) {
        match reply {
            Reply::Page { messages, more } => (messages.into_iter().map(|m| m.id).collect(), more),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pages_of_several_shards_become_one_that_leaves_nobody_out() {
        let of = |ids: &[&str], more| Reply::Page {
            messages: ids.iter().map(|id| message(id)).collect(),
            more,
        };
        let all = together(vec![
            of(&["A", "D", "G"], true),
            of(&["B", "C"], true),
            of(&["E"], false),
        ]);
        assert_eq!(ids(all), (vec!["A".into(), "B".into(), "C".into()], true));
        let rest = together(vec![of(&["D", "G"], false), of(&[], false), of(&["E"], false)]);
        assert_eq!(ids(rest), (vec!["D".into(), "E".into(), "G".into()], false));
    }

    #[test]
    fn the_shard_that_knows_the_message_has_the_word() {
        for (replies, all) in [
            (vec![Reply::Unknown, Reply::Done, Reply::Unknown], Reply::Done),
            (vec![Reply::Unacknowledged, Reply::Unknown], Reply::Unacknowledged),
            (vec![Reply::Unknown, Reply::Unknown], Reply::Unknown),
            (vec![Reply::All(2), Reply::All(3)], Reply::All(5)),
            (vec![], Reply::Unknown),
        ] {
            assert_eq!(together(replies), all);
        }
    }

    #[test]
    fn a_socket_is_for_its_owner_and_replaces_a_stale_one_and_goes_with_its_edge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        let (stale, _) = Place::bind(folder.path()).unwrap();
        let (place, _listener) = Place::bind(folder.path()).unwrap();
        drop(stale);
        assert!(path.exists(), "it is another edge's by now");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(place);
        assert!(!path.exists());
        let error = Place::bind(&folder.path().join("absent")).unwrap_err();
        assert!(error.contains("absent/admin.sock"), "{error}");
    }
}
