//! The admin pages: `/metrics`, `/healthz`, `/readyz` and the status page at `/`.
//!
//! Promises: only reads; takes no bodies; a bounded number of connections, each answers one request and lives for a few
//! seconds at most, so that a slow reader holds up nobody. Lives on the control thread.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::status::{History, Phase, StatusSource, page};
use crate::log::{Level, Log};
use crate::metrics::{Gauge, Metrics};

/// Connections at once; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// How long a connection may live.
const LIFE: Duration = Duration::from_secs(10);

/// Binds the admin socket before the process begins to serve, so that a bad address is told at once.
pub fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("the admin pages cannot listen on {address}: another process listens there; change [admin] listen")
        }
        std::io::ErrorKind::PermissionDenied => format!(
            "the admin pages cannot listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        ),
        _ => format!("the admin pages cannot listen on {address}: {e}"),
    })
}

/// What the pages are made from.
#[derive(Clone)]
pub struct Admin {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Phase and bindings.
    pub status: StatusSource,
    /// Messages in the last minute.
    pub history: Arc<History>,
    /// When the process began.
    pub epoch: Instant,
}

impl Admin {
    /// Whether new mail is taken: by this process's own word, and no shard is silent.
    fn ready(&self) -> Result<(), String> {
        let phase = (self.status)().phase;
        let stale = self.metrics.gauge(Gauge::StaleShards);
        self.metrics
            .set(Gauge::Ready, u64::from(phase == Phase::Serving && stale == 0));
        match (phase, stale) {
            (Phase::Serving, 0) => Ok(()),
            (Phase::Serving, n) => Err(format!("{n} shards are silent\n")),
            (phase, _) => Err(format!("{}\n", phase.name())),
        }
    }
}

/// Serves, for ever.
pub async fn serve(listener: TcpListener, admin: Admin, log: Log) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(inner) => Bounded {
            inner,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        },
        Err(e) => return log.event(Level::Error, "the admin pages cannot be served", &[("error", &e)]),
    };
    if let Err(e) = axum::serve(listener, router(admin)).await {
        log.event(Level::Error, "the admin pages have ended", &[("error", &e)]);
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { plain(StatusCode::OK, "ok\n".to_owned()) }))
        .route("/readyz", get(readyz))
        .route("/", get(status))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "there is no such page\n".to_owned()) })
        .layer(map_response(common))
        .with_state(admin)
}

/// What every response says, those of the library as well: not to be cached, guessed at or framed, and no further
/// request follows on its connection.
async fn common(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let _ = admin.ready(); // for its gauge
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render()).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.ready() {
        Ok(()) => plain(StatusCode::OK, "ready\n".to_owned()),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn status(State(admin): State<Admin>) -> Response {
    // Only the style sheet of this very response is taken; there is no script at all.
    let nonce = format!(
        "{:016x}{:016x}",
        RandomState::new().build_hasher().finish(),
        RandomState::new().hash_one(1)
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let body = page(
        &(admin.status)(),
        &admin.metrics,
        &admin.history,
        admin.epoch.elapsed(),
        &nonce,
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, body).into_response()
}

/// A listener that holds a bounded number of connections.
struct Bounded {
    inner: tokio::net::TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Mortal;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Mortal, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, peer) = axum::serve::Listener::accept(&mut self.inner).await;
        (
            Mortal {
                stream,
                end: Box::pin(sleep(LIFE)),
                _place: place,
            },
            peer,
        )
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that fails once its time is over.
struct Mortal {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Mortal {
    fn alive(&mut self, cx: &mut Context<'_>) -> std::io::Result<&mut TcpStream> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(std::io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(&mut self.stream),
        }
    }
}

impl AsyncRead for Mortal {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let stream = self.alive(cx)?;
        Pin::new(stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let stream = self.alive(cx)?;
        Pin::new(stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told_with_what_to_do() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind(taken).unwrap_err();
        assert!(
            error.contains(&taken.to_string()) && error.contains("[admin] listen"),
            "{error}"
        );
    }
}
