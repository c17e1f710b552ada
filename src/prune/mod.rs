//! Removing what no snapshot needs any more, while backups go on.
//!
//! ```text
//! mark       all that snapshots and running backups reach, and the bases of deltas      mark, live
//! plan       packs that go, packs that stay, packs that are written anew (pure)         survey, plan
//! repack     what is needed of these last goes to new packs, which are listed           repack
//! condemn    the packs that are to go are published; running backups acknowledge it     repo::coord
//! sweep      marked again; what is needed after all stays; the rest is dropped from
//!            the index, then deleted                                                    collector
//! segments   small index segments become few                                            merge
//! ```
//!
//! A crash at any point leaves a repository that is whole, and the next prune goes on from there.

mod collector;
mod live;
mod mark;
mod merge;
pub mod plan;
mod repack;
mod survey;
