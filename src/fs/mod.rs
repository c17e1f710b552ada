//! Files: reading a source, writing a target.

pub mod target;
