//! One file for each command: its arguments, what it runs, how it shows the result.

pub mod backup;
pub mod cache;
pub mod cat;
pub mod check;
pub mod completions;
pub mod docs;
pub mod dump;
pub mod init;
pub mod key;
pub mod ls;
pub mod man;
pub mod mount;
pub mod rebuild_index;
pub mod restore;
pub mod serve;
pub mod snapshots;
pub mod stats;
pub mod version;
