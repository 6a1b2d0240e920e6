//! The control thread from outside: block lists and next hops against a scripted name server, the admin pages over HTTP,
//! stand-ins for silent shards, signals; and what must hold for every log line and for the metrics as text.

mod dns;
mod lines;
mod name_server;
mod pages;
mod resolve;
mod rig;
mod shards;
