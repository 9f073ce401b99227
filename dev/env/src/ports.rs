//! Free ports on loopback.
//!
//! From 20000 to 29999: outside the range from which Linux takes the source ports of outgoing connections, so that a
//! server that was stopped finds its port still free. A lock file per fifty ports keeps processes that start at the same
//! moment apart; a process holds its fifty until it ends.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Error, Result};
use crate::places;

const FIRST: u16 = 20_000;
const BLOCKS: u16 = 200;
const BLOCK: u16 = 50;

struct Block {
    next: u16,
    end: u16,
    _lock: File,
}

static BLOCKS_OF_OURS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that is free, and that nobody else who asks here is given while this process lives.
pub fn free() -> Result<u16> {
    let mut blocks = BLOCKS_OF_OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(block) = blocks.last_mut() {
            while block.next < block.end {
                let port = block.next;
                block.next += 1;
                if is_free(port) {
                    return Ok(port);
                }
            }
        }
        let block = claim()?;
        blocks.push(block);
    }
}

/// Whether a server could listen on this port of 127.0.0.1 now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn claim() -> Result<Block> {
    let directory = places::directory(places::passing()?.join("ports"), 0o700)?;
    // Anywhere in the range, so that users who do not share lock files rarely meet.
    let start = RandomState::new().hash_one(std::process::id()) % u64::from(BLOCKS);
    for index in 0..BLOCKS {
        let number = (u16::try_from(start).unwrap_or_default() + index) % BLOCKS;
        let path = directory.join(format!("{number}.lock"));
        let lock = File::create(&path).at("opening", &path)?;
        if lock.try_lock().is_ok() {
            let next = FIRST + number * BLOCK;
            return Ok(Block { next, end: next + BLOCK, _lock: lock });
        }
    }
    Err(Error::message("no free ports between 20000 and 29999: too many environments run at once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_is_free() {
        let ports: Vec<u16> = (0..60).map(|_| free().expect("a port")).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).expect("free");
        assert!(!is_free(ports[0]));
        drop(taken);
    }
}
