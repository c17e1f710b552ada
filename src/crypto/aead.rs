//! AES-256-GCM with nonces that cannot repeat.
//!
//! Every object has a key of its own, so its nonces are a plain counter. The counter belongs to a
//! [`Sealer`], which cannot be cloned; a number it gave out is used up by sealing.
//!
//! ```text
//! nonce            12 B  number u64 little-endian, domain u32 little-endian
//! associated data  76 B  header, nonce
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};

use crate::crypto::keys::KEY_LEN;
use crate::format::header::HEADER_LEN;

/// Length of the tag that sealing appends, in bytes.
pub const TAG_LEN: usize = 16;
const NONCE_LEN: usize = 12;

/// Sealed bytes that do not open: they were altered, or belong elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its seal is broken")]
pub struct BrokenSeal;

/// What is sealed: keeps numbers of different uses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain {
    /// Frames of a pack, or the one body of a small object.
    Body,
    /// The directory of a pack.
    Directory,
}

/// The key of one object, and the header it is bound to.
pub struct ObjectKey {
    cipher: Aes256Gcm,
    header: [u8; HEADER_LEN],
}

/// The number of one part, good for sealing once.
#[derive(Debug)]
pub struct FrameNumber(u32);

impl FrameNumber {
    /// The number itself.
    pub fn get(&self) -> u32 {
        self.0
    }
}

/// Seals the parts of one new object, from many threads.
pub struct Sealer {
    key: ObjectKey,
    next: AtomicU32,
    ended: AtomicBool,
}

impl ObjectKey {
    pub(crate) fn new(key: &[u8; KEY_LEN], header: [u8; HEADER_LEN]) -> Self {
        Self { cipher: Aes256Gcm::new(key.into()), header }
    }

    /// For a new object: seals its parts in order.
    pub fn into_sealer(self) -> Sealer {
        Sealer { key: self, next: AtomicU32::new(0), ended: AtomicBool::new(false) }
    }

    /// Opens part `number` in place; `bytes` is shortened by the tag.
    pub fn open(&self, number: u32, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        self.open_domain(Domain::Body, number, bytes)
    }

    /// Opens the directory of a pack in place.
    pub fn open_directory(&self, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        self.open_domain(Domain::Directory, 0, bytes)
    }

    fn open_domain(&self, domain: Domain, number: u32, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        let body = bytes.len().checked_sub(TAG_LEN).ok_or(BrokenSeal)?;
        let (text, tag) = bytes.split_at_mut(body);
        let tag: [u8; TAG_LEN] = (&*tag).try_into().map_err(|_| BrokenSeal)?;
        let (nonce, bound) = self.bind(domain, number);
        self.cipher
            .decrypt_inout_detached(&Nonce::from(nonce), &bound, text.into(), &tag.into())
            .map_err(|_| BrokenSeal)?;
        bytes.truncate(body);
        Ok(())
    }

    fn seal_domain(&self, domain: Domain, number: u32, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        let (nonce, bound) = self.bind(domain, number);
        let tag = self
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &bound, bytes.as_mut_slice().into())
            .map_err(|_| BrokenSeal)?;
        bytes.extend_from_slice(&tag);
        Ok(())
    }

    fn bind(&self, domain: Domain, number: u32) -> ([u8; NONCE_LEN], [u8; HEADER_LEN + NONCE_LEN]) {
        let domain: u32 = match domain {
            Domain::Body => 0,
            Domain::Directory => 1,
        };
        let mut nonce = [0; NONCE_LEN];
        let (low, high) = nonce.split_at_mut(8);
        low.copy_from_slice(&u64::from(number).to_le_bytes());
        high.copy_from_slice(&domain.to_le_bytes());
        let mut bound = [0; HEADER_LEN + NONCE_LEN];
        let (head, tail) = bound.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&self.header);
        tail.copy_from_slice(&nonce);
        (nonce, bound)
    }
}

impl Sealer {
    /// Takes the number of the next part; nothing once all are used up.
    pub fn take_number(&self) -> Option<FrameNumber> {
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        taken.ok().map(FrameNumber)
    }

    /// Seals `bytes` in place as the part `number` and appends the tag.
    pub fn seal(&self, number: FrameNumber, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        self.key.seal_domain(Domain::Body, number.0, bytes)
    }

    /// Seals `bytes` in place as the next part and appends the tag.
    pub fn seal_next(&self, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        let number = self.take_number().ok_or(BrokenSeal)?;
        self.seal(number, bytes)
    }

    /// Seals the directory, once.
    pub fn seal_directory(&self, bytes: &mut Vec<u8>) -> Result<(), BrokenSeal> {
        if self.ended.swap(true, Ordering::Relaxed) {
            return Err(BrokenSeal);
        }
        self.key.seal_domain(Domain::Directory, 0, bytes)
    }

    /// The key, to open again what was sealed.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(header: u8) -> ObjectKey {
        ObjectKey::new(&[7; KEY_LEN], [header; HEADER_LEN])
    }

    #[test]
    fn sealed_bytes_open_only_as_what_they_were_sealed() {
        let sealer = key(1).into_sealer();
        let mut first = b"some text".to_vec();
        sealer.seal_next(&mut first).unwrap();
        assert_eq!(hex::encode(&first), "12b7c9d7dbe66e9095d0f192572797d83f972643e36bf3a31f");

        let mut opened = first.clone();
        key(1).open(0, &mut opened).unwrap();
        assert_eq!(opened, b"some text");

        assert_eq!(key(1).open(1, &mut first.clone()), Err(BrokenSeal));
        assert_eq!(key(2).open(0, &mut first.clone()), Err(BrokenSeal));
        assert_eq!(key(1).open_directory(&mut first.clone()), Err(BrokenSeal));
        for bit in 0..first.len() * 8 {
            let mut damaged = first.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(1).open(0, &mut damaged), Err(BrokenSeal));
        }
        assert_eq!(key(1).open(0, &mut vec![0; TAG_LEN - 1]), Err(BrokenSeal));
    }
}
