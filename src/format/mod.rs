//! Bytes on disk: one structure per file, each with its layout, encoder and decoder.
//!
//! `docs/format.md` puts them together. What is sealed is decoded here from its plaintext.

pub mod config;
pub mod content;
pub mod directory;
pub mod entry;
pub mod generation;
pub mod header;
pub mod key_slot;
pub mod lease;
pub mod listing;
pub mod manifest;
pub mod pack;
pub mod segment;
pub mod wire;
