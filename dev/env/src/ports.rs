//! Free ports on loopback.
//!
//! The range is 20000 to 29999, outside the range from which Linux takes the source ports of outgoing connections: a
//! server that was stopped can take its port again. Each process locks blocks of fifty ports until it ends, so that
//! processes that start at the same time take different ports.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Error, Result};
use crate::paths;

const FIRST: u16 = 20_000;
const BLOCKS: u16 = 200;
const BLOCK: u16 = 50;

struct Block {
    next: u16,
    end: u16,
    _lock: File,
}

static LOCKED_BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A free port of 127.0.0.1. No other caller gets it while this process runs.
pub fn free() -> Result<u16> {
    let mut blocks = LOCKED_BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
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
        let block = lock_block()?;
        blocks.push(block);
    }
}

/// Whether a server could listen on this port of 127.0.0.1 now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn lock_block() -> Result<Block> {
    let directory = paths::directory(paths::temporary_root()?.join("ports"), 0o700)?;
    // A random start, so that users who do not share lock files rarely collide.
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
    fn free_ports_are_distinct_and_free() {
        let ports: Vec<u16> = (0..60).map(|_| free().expect("a port")).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).expect("free");
        assert!(!is_free(ports[0]));
        drop(listener);
    }
}
