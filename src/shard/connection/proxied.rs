//! A connection that a proxy makes for its client: the PROXY header first, then admission of the client that it names.
//!
//! Promises: the header is bounded in length and time; the proxy's place in the total becomes the client's. Lives on its
//! shard.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Arrival, Connection};
use crate::policy::network;
use crate::shard::stream::{Wake, read};
use crate::shard::{Shard, proxy};

/// How long a PROXY header may take.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(10);

/// Reads the PROXY header first; admission judges the client that it names.
pub(in crate::shard) async fn serve_proxied(shard: Rc<Shard>, mut arrival: Arrival) {
    let seat = shard.slots.seat(arrival.opened + PROXY_HEADER_TIME);
    let mut input = Vec::new();
    let (used, named) = loop {
        match read(&shard, &seat, &mut arrival.stream, &input, proxy::MAX_HEADER).await {
            Wake::Data(filled) => {
                input.clear();
                input.extend_from_slice(shard.scratch.borrow().get(..filled).unwrap_or_default());
            }
            Wake::Alarm(_) | Wake::End | Wake::Broken => return shard.record_no_header(&arrival),
        }
        match proxy::header(&input) {
            proxy::Header::Whole(used, named) => break (used, named),
            proxy::Header::Incomplete => {}
            proxy::Header::Invalid => return shard.record_no_header(&arrival),
        }
    };
    drop(seat);
    input.drain(..used);
    if let Some(address) = named {
        arrival.peer = SocketAddr::new(network::canonical(address), 0);
    }
    let Arrival {
        stream,
        peer,
        settings,
        binding,
        claim,
        opened,
    } = arrival;
    // The proxy's place in the total becomes the client's.
    drop(claim);
    match shard.admit(&settings, &binding, peer.ip()) {
        Ok(claim) => {
            let arrival = Arrival {
                stream,
                peer,
                settings,
                binding,
                claim,
                opened,
            };
            Connection::run(Connection::new(shard, arrival, input)).await;
        }
        Err(event) => shard.refuse_stream(stream, &settings, &binding, peer.ip(), event).await,
    }
}
