//! zstd, and patches against old bytes, with a hard cap on what a decoder may give out.

mod find;
mod patch;

use std::io;

use zstd::bulk;
use zstd::zstd_safe::{CCtx, CParameter, DCtx};

use crate::crypto::aead::TAG_LEN;
use crate::limits::{FRAME_PREFIX_MAX_BYTES, FRAME_RAW_MAX_BYTES};

/// Compressed bytes that do not decode to what they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not decompress")]
pub struct DecompressError;

/// A reusable compressor at one level.
pub struct Compressor {
    context: bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl Compressor {
    /// A compressor at this zstd level.
    pub fn new(level: i32) -> io::Result<Self> {
        Ok(Self { context: bulk::Compressor::new(level)?, scratch: Vec::new() })
    }

    /// `raw` as one zstd frame, or nothing where that would not save at least one part in 32.
    ///
    /// The result has room for the tag that sealing appends, and not more: packs wait in memory.
    pub fn compress(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        let cap = raw.len() - raw.len() / 32;
        self.scratch.clear();
        self.scratch.reserve(cap);
        // The only failure of this call is a destination that is too small.
        let len = self.context.compress_to_buffer(raw, &mut self.scratch).ok()?;
        if len > cap {
            return None;
        }
        let mut out = Vec::with_capacity(len + TAG_LEN);
        out.extend_from_slice(&self.scratch);
        Some(out)
    }
}

/// `raw` as one zstd frame that refers to `prefix`, or nothing where it would not be shorter than `raw`.
pub fn compress_delta(raw: &[u8], prefix: &[u8], level: i32) -> Option<Vec<u8>> {
    // A prefix is borrowed by its context, so each frame takes a context of its own.
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
    context.ref_prefix(prefix).ok()?;
    let mut out = Vec::with_capacity(raw.len() + TAG_LEN);
    let len = context.compress2(&mut out, raw).ok()?;
    if len >= raw.len() {
        return None;
    }
    // Packs wait in memory: what they hold is no longer than it must be.
    out.shrink_to(len + TAG_LEN);
    Some(out)
}

/// True if at least half of `new` is copied from `old` by a patch.
pub fn resembles(new: &[u8], old: &[u8]) -> bool {
    let copied: usize = find::copies(new, old).iter().map(|copy| copy.len).sum();
    copied >= new.len() - new.len() / 2
}

/// `raw` as a patch of `old`, or nothing where it would not be shorter than `raw`.
pub fn compress_patch(raw: &[u8], old: &[u8], level: i32) -> Option<Vec<u8>> {
    patch::encode(raw, old, level, TAG_LEN).filter(|bytes| bytes.len() < raw.len())
}

/// The `raw_len` bytes that a patch makes of `old`.
pub fn apply_patch(
    context: &mut Decompressor,
    patch: &[u8],
    old: &[u8],
    raw_len: usize,
) -> Result<Vec<u8>, DecompressError> {
    if raw_len > FRAME_RAW_MAX_BYTES || old.len() > FRAME_PREFIX_MAX_BYTES {
        return Err(DecompressError);
    }
    patch::decode(patch, old, raw_len, context)
}

/// A reusable decompressor.
pub struct Decompressor {
    context: bulk::Decompressor<'static>,
}

impl Decompressor {
    /// A decompressor.
    pub fn new() -> io::Result<Self> {
        Ok(Self { context: bulk::Decompressor::new()? })
    }

    /// The `raw_len` bytes of a frame that `compressed` stands for; anything else is an error.
    pub fn decompress(&mut self, compressed: &[u8], raw_len: usize) -> Result<Vec<u8>, DecompressError> {
        if raw_len > FRAME_RAW_MAX_BYTES {
            return Err(DecompressError);
        }
        self.decompress_large(compressed, raw_len)
    }

    /// As [`decompress`](Self::decompress), for callers that have bounded `raw_len` themselves.
    pub fn decompress_large(
        &mut self,
        compressed: &[u8],
        raw_len: usize,
    ) -> Result<Vec<u8>, DecompressError> {
        let mut out = Vec::with_capacity(raw_len);
        match self.context.decompress_to_buffer(compressed, &mut out) {
            Ok(len) if len == raw_len => Ok(out),
            _ => Err(DecompressError),
        }
    }

    /// As [`decompress`](Self::decompress), for a frame that refers to `prefix`.
    pub fn decompress_delta(
        &mut self,
        compressed: &[u8],
        prefix: &[u8],
        raw_len: usize,
    ) -> Result<Vec<u8>, DecompressError> {
        if raw_len > FRAME_RAW_MAX_BYTES || prefix.len() > FRAME_PREFIX_MAX_BYTES {
            return Err(DecompressError);
        }
        // A prefix is borrowed by its context, so each delta frame takes a context of its own; that
        // costs some microseconds against the hundreds that a frame takes.
        let mut context = DCtx::try_create().ok_or(DecompressError)?;
        context.ref_prefix(prefix).map_err(|_| DecompressError)?;
        let mut out = Vec::with_capacity(raw_len);
        match context.decompress(&mut out, compressed) {
            Ok(len) if len == raw_len => Ok(out),
            _ => Err(DecompressError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn text_shrinks_and_noise_is_left_alone() {
        let mut compressor = Compressor::new(1).unwrap();
        let text = b"all work and no play ".repeat(1000);
        let packed = compressor.compress(&text).unwrap();
        assert!(packed.len() < text.len() / 20);
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(decompressor.decompress(&packed, text.len()), Ok(text.clone()));
        assert_eq!(decompressor.decompress(&packed, text.len() - 1), Err(DecompressError));
        assert_eq!(decompressor.decompress(&packed, text.len() + 1), Err(DecompressError));
        assert_eq!(decompressor.decompress(&packed[..packed.len() - 1], text.len()), Err(DecompressError));
        // After a failure the contexts still work.
        assert_eq!(compressor.compress(&noise(1, 100_000)), None);
        assert_eq!(compressor.compress(&text), Some(packed.clone()));
        assert_eq!(decompressor.decompress(&packed, text.len()), Ok(text));
    }

    #[test]
    fn a_bomb_stops_at_the_promised_length() {
        let zeros = vec![0; 8 << 20];
        let packed = Compressor::new(1).unwrap().compress(&zeros).unwrap();
        assert_eq!(Decompressor::new().unwrap().decompress(&packed, 1000), Err(DecompressError));
    }

    #[test]
    fn a_delta_needs_its_prefix() {
        let prefix = noise(1, 200_000);
        let mut changed = prefix.clone();
        changed.splice(70_000..70_010, *b"new");
        let mut context = zstd::zstd_safe::CCtx::create();
        context.set_parameter(zstd::zstd_safe::CParameter::CompressionLevel(3)).unwrap();
        context.ref_prefix(&prefix).unwrap();
        let mut packed = Vec::with_capacity(300_000);
        context.compress2(&mut packed, &changed).unwrap();
        assert!(packed.len() < 2000, "{}", packed.len());
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(decompressor.decompress_delta(&packed, &prefix, changed.len()), Ok(changed.clone()));
        assert_ne!(decompressor.decompress_delta(&packed, &noise(2, 200_000), changed.len()), Ok(changed));
    }
}
