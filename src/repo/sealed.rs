//! Small objects that are sealed whole: the config, segments, snapshots.
//!
//! ```text
//! header     64 B
//! body            sealed: u8 codec (0 as is, 1 zstd), u32 plaintext length, the (compressed) bytes
//! ```

use bytes::Bytes;

use crate::compress::{Compressor, Decompressor};
use crate::crypto::aead::TAG_LEN;
use crate::crypto::keys::RoleKeys;
use crate::env::fill_random;
use crate::error::{Error, Result};
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::wire::{DecodeError, Reader};
use crate::id::RepoId;
use crate::limits::{SEALED_LEVEL, SEGMENT_MAX_BYTES};
use crate::store::ObjectName;

const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const PREAMBLE_LEN: usize = 5;

/// A header with a fresh salt.
pub fn new_header(kind: ObjectKind, repo: RepoId) -> Result<Header> {
    let mut salt = [0; 32];
    fill_random(&mut salt).map_err(Error::io("read random bytes from", "the operating system"))?;
    Ok(Header { kind, repo, salt })
}

/// All bytes of a new object.
pub fn seal(keys: &RoleKeys, kind: ObjectKind, repo: RepoId, plaintext: &[u8]) -> Result<Vec<u8>> {
    if plaintext.len() > SEGMENT_MAX_BYTES {
        return Err(Error::Usage(format!(
            "what is to be stored about this run takes more than {SEGMENT_MAX_BYTES} bytes: name fewer paths"
        )));
    }
    let header = new_header(kind, repo)?;
    let raw_len = u32::try_from(plaintext.len())
        .map_err(|_| Error::Internal("a sealed object is too large".to_owned()))?;
    let compressed = Compressor::new(SEALED_LEVEL).map_err(Error::io("start", "zstd"))?.compress(plaintext);
    let (codec, payload) = match &compressed {
        Some(bytes) => (CODEC_ZSTD, bytes.as_slice()),
        None => (CODEC_RAW, plaintext),
    };
    let mut body = Vec::with_capacity(PREAMBLE_LEN + payload.len() + TAG_LEN);
    body.push(codec);
    body.extend_from_slice(&raw_len.to_le_bytes());
    body.extend_from_slice(payload);
    keys.object_key(&header)
        .into_sealer()
        .seal_next(&mut body)
        .map_err(|_| Error::Internal("sealing failed".to_owned()))?;
    Ok([&header.encode()[..], &body].concat())
}

/// Opens an object of `kind` and gives its plaintext.
pub fn open(
    keys: &RoleKeys,
    kind: ObjectKind,
    repo: RepoId,
    name: &ObjectName,
    object: &Bytes,
) -> Result<Vec<u8>> {
    let header = decode_header(name, object, kind, repo)?;
    let mut body = object.get(HEADER_LEN..).unwrap_or_default().to_vec();
    keys.object_key(&header).open(0, &mut body).map_err(|error| Error::damaged(name, error))?;
    decode_body(&body).map_err(|error| decode_error(name, error))
}

fn decode_body(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(body);
    let codec = reader.u8("the codec")?;
    let raw_len =
        usize::try_from(reader.u32("the length")?).map_err(|_| DecodeError::TooLarge("the length"))?;
    if raw_len > SEGMENT_MAX_BYTES {
        return Err(DecodeError::TooLarge("the length"));
    }
    let payload = reader.take(reader.remaining(), "the body")?;
    match codec {
        CODEC_RAW if payload.len() == raw_len => Ok(payload.to_vec()),
        CODEC_RAW => Err(DecodeError::Invalid("the length")),
        CODEC_ZSTD => Decompressor::new()
            .map_err(|_| DecodeError::Invalid("the body"))?
            .decompress_large(payload, raw_len)
            .map_err(|_| DecodeError::Invalid("the body")),
        other => Err(DecodeError::TooNew(format!("codec {other}"))),
    }
}

/// Decodes the header of an object and checks that it is of this kind and repository.
pub fn decode_header(name: &ObjectName, object: &[u8], kind: ObjectKind, repo: RepoId) -> Result<Header> {
    let header = Header::decode(object).map_err(|error| decode_error(name, error))?;
    if header.kind != kind {
        return Err(Error::damaged(name, "it is an object of another kind"));
    }
    if header.repo != repo {
        return Err(Error::damaged(name, "it belongs to another repository"));
    }
    Ok(header)
}

/// A decoder's error about the object `name`.
pub fn decode_error(name: impl ToString, error: DecodeError) -> Error {
    match error {
        DecodeError::TooNew(needs) => Error::TooNew { object: name.to_string(), needs },
        error => Error::damaged(name, error),
    }
}
