//! What a running edge has in its memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::edge::Edge;

const PAGE: u64 = 4096;

/// Whether these octets stand anywhere in the writable memory of the process. Pages that were never touched are passed over.
pub fn remembers(edge: &Edge, octets: &str) -> bool {
    let of = |name: &str| format!("/proc/{}/{name}", edge.pid());
    let maps = std::fs::read_to_string(of("maps")).unwrap();
    let (memory, pages) = (File::open(of("mem")).unwrap(), File::open(of("pagemap")).unwrap());
    let has = |from: u64, to: u64| {
        let mut there = vec![0; usize::try_from(to - from).unwrap()];
        // A range that cannot be read is the kernel's, or has gone meanwhile.
        memory.read_exact_at(&mut there, from).is_ok() && memchr::memmem::find(&there, octets.as_bytes()).is_some()
    };
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut entries = vec![0; usize::try_from((to - from) / PAGE * 8).unwrap()];
        pages.read_exact_at(&mut entries, from / PAGE * 8).unwrap();
        // In memory or swapped out: the two highest bits of an entry (proc_pid_pagemap(5)).
        let used: Vec<bool> = entries.chunks(8).map(|entry| entry[7] & 0xc0 != 0).collect();
        let mut at = 0;
        used.chunk_by(|a, b| a == b).any(|run| {
            let start = from + at as u64 * PAGE;
            at += run.len();
            run[0] && has(start, from + at as u64 * PAGE)
        })
    })
}
