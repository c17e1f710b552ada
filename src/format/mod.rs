//! Bytes on disk: one structure per file, each with its layout, encoder and decoder.

pub mod directory;
pub mod entry;
pub mod wire;
