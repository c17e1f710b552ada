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

/// Lets this process open as many files as the system permits, and returns how many: a walk of
/// a deep tree holds a handle for every level.
pub fn raise_open_files_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if before == limit.maximum || setrlimit(Resource::Nofile, limit).is_ok() {
        return limit.maximum.unwrap_or(u64::MAX);
    }
    before.unwrap_or(u64::MAX)
}
