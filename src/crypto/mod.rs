//! Keys and ciphers. Secrets are zeroized when dropped; none can be printed, serialized or cloned.
//!
//! ```text
//! password --Argon2id(salt of the slot)--> key-encryption key || commitment
//! slot: key-encryption key seals the master key (32 random bytes)
//! master key --BLAKE3 derive_key(context)--> one role key each for: chunk ids, the gear table,
//!     data packs, metadata packs, index segments, snapshots, the config, slot labels
//! role key, object header --BLAKE3 keyed hash--> key of one object
//! ```

pub mod aead;
pub mod kdf;
pub mod keys;
