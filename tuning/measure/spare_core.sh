#!/usr/bin/env bash
# Durable-first mail on two cores, with a shard on each and with one shard and a core to spare; and all of it on one core. The next hop
# is on core 1 in each, the client where the shards are.
. "$(dirname "$0")/lib.sh"
namespace
two_shards() { CORES=0-1 LOAD_CORE=0-1 SHARDS=2 relay; }
one_shard() { CORES=0-1 LOAD_CORE=0-1 SHARDS=1 relay; }
one_core() { CORES=0 LOAD_CORE=0 SHARDS=1 relay; }
turns two_shards one_shard one_core
