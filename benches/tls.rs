//! TLS as [`postern::tls`] sets it up, over memory: what a handshake and a message cost without a network.
//!
//! `full` and `resumed`: both sides of a handshake, so the server's share is about half. `record`: 16 KiB sealed by the client and
//! opened by the server; `copy` is the lower bound in the same run: the same octets copied once. Run: `cargo bench --bench tls`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postern::tls::{SelfSigned, Server, Trust, client};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};

const RECORD: usize = 16 << 10;

fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let (identity, _) = SelfSigned::below(dir.path()).identity("mx.test", now).unwrap();
    Server::new(vec![identity]).unwrap()
}

fn shake(server: &Server, config: &Arc<ClientConfig>) -> (ClientConnection, ServerConnection) {
    let mut client = ClientConnection::new(config.clone(), "mx.test".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server.config().clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    (client, server)
}

fn handshakes(c: &mut Criterion) {
    let server = server();
    let known = client(Trust::Anyone).unwrap();
    let mut forgetful = (*known).clone();
    forgetful.resumption = Resumption::disabled();
    let forgetful = Arc::new(forgetful);
    let mut group = c.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("full", |b| b.iter(|| black_box(shake(&server, &forgetful))));
    let _ = shake(&server, &known);
    assert_eq!(shake(&server, &known).1.handshake_kind(), Some(HandshakeKind::Resumed));
    group.bench_function("resumed", |b| b.iter(|| black_box(shake(&server, &known))));
    group.finish();
}

fn records(c: &mut Criterion) {
    let server = server();
    let (mut client, mut server) = shake(&server, &client(Trust::Anyone).unwrap());
    let (sent, mut taken) = (vec![b'x'; RECORD], vec![0; RECORD]);
    let mut wire = Vec::with_capacity(2 * RECORD);
    let mut group = c.benchmark_group("content");
    group.throughput(Throughput::Bytes(RECORD as u64));
    group.bench_function("record", |b| {
        b.iter(|| {
            client.writer().write_all(&sent).unwrap();
            wire.clear();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            server.reader().read_exact(&mut taken).unwrap();
        })
    });
    group.bench_function("copy", |b| {
        b.iter(|| black_box(&mut taken).copy_from_slice(black_box(&sent)))
    });
    group.finish();
    assert_eq!(sent, taken);
}

criterion_group!(benches, handshakes, records);
criterion_main!(benches);
