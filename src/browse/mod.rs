//! Browsing: snapshots as folders and files, read at any place, by whoever serves them to others.
//!
//! ```text
//! Browser   the list of snapshots, loaded again as it ages; the index, brought up to date when needed
//!  ├ layout    virtual folders above the snapshots
//!  ├ in_use    what a lease keeps meanwhile
//!  └ View      what snapshots hold, by one state of the index
//!     ├ Listing   a directory: entries by address and by name
//!     └ Stream    a file: bytes at any offset; reads in order are read ahead of
//! ```
//!
//! Memory is bounded: caches by bytes or entries, lists of parts and listings by being read piece by piece.

mod ahead;
mod browser;
mod complaints;
mod frames;
mod in_use;
mod kept;
mod layout;
mod listing;
mod parts;
mod stream;
mod view;

#[cfg(test)]
mod tests;

pub use browser::{Browser, BrowserOptions, Found};
pub use complaints::Complaints;
pub use layout::{DEFAULT_TEMPLATES, Placeable, Templates, TopDir, VirtualDir, VirtualNode};
pub use listing::{Entries, Listing, Located};
pub use stream::{Bytes, Stream};
pub use view::View;
