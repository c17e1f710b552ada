//! backstay: a deduplicating, encrypted, content-addressed backup store.
//!
//! The layers, lowest first; a module imports only from layers below its own (a test holds this):
//!
//! - vocabulary: [`id`], [`extent`], [`entry_name`], [`limits`], [`mod@env`], [`observe`], [`error`]
//! - pure transforms: [`mod@format`] (bytes on disk), [`chunk`], [`compress`], [`crypto`]
//! - boundaries: [`seal`] (frames), [`store`] (objects), [`fs`] (files)
//! - the repository: [`repo`]
//! - browsing: [`browse`] (snapshots as folders and files), and who serves it: [`mount`], [`webdav`]
//! - operations: [`backup`], [`restore`], [`check`], [`forget`], [`edit`], [`prune`], [`rebuild_index`],
//!   [`stats`], [`find`], [`diff`], [`dump`]
//! - the shell: [`cli`]
//!
//! `docs/architecture.md` is the map; `docs/format.md` specifies every byte of a repository.

pub mod backup;
pub mod browse;
pub mod check;
pub mod chunk;
pub mod cli;
pub mod compress;
pub mod crypto;
pub mod diff;
pub mod dump;
pub mod edit;
pub mod entry_name;
pub mod env;
pub mod error;
pub mod extent;
pub mod find;
pub mod forget;
pub mod format;
pub mod fs;
pub mod id;
pub mod limits;
pub mod mount;
pub mod observe;
pub mod prune;
pub mod rebuild_index;
pub mod repo;
pub mod restore;
pub mod seal;
pub mod stats;
pub mod store;
pub mod webdav;
