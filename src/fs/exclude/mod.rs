//! Which files are left out of a backup, and which come back in a restore.
//!
//! # Patterns
//!
//! - A pattern that starts with `/` is compared with the whole path from the root of the file
//!   system (or of the snapshot). Any other matches wherever its components stand one after the
//!   other: `*.o`, `target/debug`.
//! - What matches a directory holds for everything below it.
//! - `*` stands for any characters, `?` for one, `[a-z]` for one of a class, `[!a-z]` (or `[^a-z]`)
//!   for one outside of it, `\x` for `x` itself. None of them matches a `/`.
//! - `**` as a component stands for any number of components, also none.
//! - A pattern after a `!` takes back what earlier patterns matched; the last that matches counts.
//!   Below a directory that stays excluded nothing is looked at, so nothing there can be taken back.
//! - Names are compared as bytes. A `?` or class takes one character where the name is UTF-8 there,
//!   else one byte.
//!
//! A walk carries a position in the patterns down with it instead of comparing whole paths: what a
//! name costs does not grow with the depth, and patterns for other parts of the tree are forgotten
//! on the way.

pub use filter::{FilterState, PathFilter, Selection};
pub use finder::{FinderState, PathFinder};
pub use lines::{parse_files_from, parse_files_from_raw};
pub use rules::{ExcludeOptions, ExcludeRules, ExcludeState, Verdict};

mod filter;
mod finder;
mod glob;
mod lines;
mod patterns;
mod rules;
#[cfg(test)]
mod tests;
