//! One file for each command: its arguments, what it runs, how it shows the result.

pub mod backup;
pub mod cache;
pub mod cat;
pub mod check;
pub mod completions;
pub mod diff;
pub mod docs;
pub mod dump;
pub mod find;
pub mod forget;
pub mod history;
pub mod init;
pub mod key;
pub mod ls;
pub mod man;
pub mod mount;
pub mod prune;
pub mod rebuild_index;
pub mod restore;
pub mod rewrite;
pub mod serve;
pub mod snapshots;
pub mod stats;
pub mod tag;
pub mod version;
