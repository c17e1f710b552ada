//! Files: reading a source, writing a target.
//!
//! Both are handle-relative throughout: a directory is opened below its parent's handle, a file
//! below its directory's, and no symbolic link is ever followed. So a tree may be deeper than any
//! path can be long, and nothing that is renamed or swapped while it is read leads elsewhere.

pub mod exclude;
pub mod extents;
pub mod metadata;
pub mod owners;
pub mod source;
pub mod target;
