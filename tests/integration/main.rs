//! Tests of the program as its users meet it: the built binary, real files, real signals.
//!
//! What they know of a repository is what `docs/format.md` says. Only `old_format`,
//! `fuzz_smoke`, `leases` and the conformance of remote stores use the library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test that cannot go on must stop loudly, also in helpers that clippy does not see as tests"
)]

mod support;

mod archives;
mod backup_cli;
mod cloud;
mod commands;
mod crash;
mod damage;
mod deltas;
mod docs;
mod environment;
mod excludes;
mod finding;
mod fleet;
mod fuzz_smoke;
mod generated;
mod leases;
mod mount;
mod mount_long;
mod moving_source;
mod old_format;
mod prune;
mod restore_cli;
mod retention;
mod round_trip;
mod streams;
mod tidy;
mod webdav;
