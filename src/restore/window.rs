//! Windows: as much of a snapshot as is planned at a time.

use std::ops::Range;
use std::sync::Arc;

use crate::entry_name::EntryName;
use crate::format::entry::{Entry, Metadata, Node, Part};
use crate::id::ChunkId;
use crate::limits::{
    RESTORE_FIRST_WINDOW_PARTS, RESTORE_WINDOW_DIRS, RESTORE_WINDOW_FILES, RESTORE_WINDOW_PARTS,
};

use super::file::FileState;
use super::node::{LinkSource, Place};

/// A chunk's place in a file of the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilePart {
    pub file: u32,
    pub len: u32,
    pub offset: u64,
    pub id: ChunkId,
}

/// Bytes that are zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub file: u32,
    pub offset: u64,
    pub len: u64,
    /// Whether the zeros occupy space.
    pub allocated: bool,
}

/// A file, or a stretch of a long one.
pub(super) struct WindowFile {
    pub state: Arc<FileState>,
    pub parts: Range<usize>,
    pub gaps: Range<usize>,
    /// Whether its last part is here.
    pub is_last: bool,
}

/// A symlink, device, fifo or socket.
pub(super) struct NodeJob {
    pub place: Place,
    pub name: EntryName,
    pub meta: Metadata,
    pub node: Node,
    pub link: Option<Arc<LinkSource>>,
}

/// A further name of an inode.
pub(super) struct LinkJob {
    pub place: Place,
    pub entry: Entry,
    pub source: Arc<LinkSource>,
}

/// A bounded part of a restore.
#[derive(Default)]
pub(super) struct Window {
    pub files: Vec<WindowFile>,
    pub parts: Vec<FilePart>,
    pub gaps: Vec<Gap>,
    /// Zeros to verify: also those that a new file has without being written.
    pub checks: Vec<Gap>,
    pub nodes: Vec<NodeJob>,
    pub links: Vec<LinkJob>,
    /// Directories opened for it.
    pub dirs: usize,
}

impl Window {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.nodes.is_empty() && self.links.is_empty()
    }
}

/// Fills windows one after another. The first ones are small, so that work begins at once.
pub(super) struct Filler {
    pub window: Window,
    parts_max: usize,
}

impl Default for Filler {
    fn default() -> Self {
        Self { window: Window::default(), parts_max: RESTORE_FIRST_WINDOW_PARTS }
    }
}

impl Filler {
    /// The filled window; a new one begins.
    pub fn take(&mut self) -> Window {
        self.parts_max = (self.parts_max * 2).min(RESTORE_WINDOW_PARTS);
        std::mem::take(&mut self.window)
    }

    /// True once it should be taken.
    pub fn is_full(&self) -> bool {
        let window = &self.window;
        let files = window.files.len() + window.nodes.len() + window.links.len();
        files >= RESTORE_WINDOW_FILES.min(self.parts_max)
            || window.dirs >= RESTORE_WINDOW_DIRS
            || self.is_full_of_parts()
    }

    fn is_full_of_parts(&self) -> bool {
        self.window.parts.len() + self.window.gaps.len() >= self.parts_max
    }

    /// Begins a file, or goes on with it in a new window.
    pub fn begin(&mut self, state: &Arc<FileState>) {
        let window = &mut self.window;
        let (parts, gaps) = (window.parts.len(), window.gaps.len());
        window.files.push(WindowFile {
            state: Arc::clone(state),
            parts: parts..parts,
            gaps: gaps..gaps,
            is_last: false,
        });
    }

    /// Adds a part of the file that was begun last. False if the window must be taken, and the file
    /// begun again, before the next one.
    pub fn part(&mut self, part: &Part, offset: u64) -> bool {
        let window = &mut self.window;
        let file = u32::try_from(window.files.len().saturating_sub(1)).unwrap_or(u32::MAX);
        match *part {
            Part::Chunk { id, len } => window.parts.push(FilePart { file, len, offset, id }),
            Part::Hole { len } => window.gaps.push(Gap { file, offset, len, allocated: false }),
            Part::Zeros { len } => window.gaps.push(Gap { file, offset, len, allocated: true }),
        }
        if let Some(file) = window.files.last_mut() {
            file.parts.end = window.parts.len();
            file.gaps.end = window.gaps.len();
        }
        !self.is_full_of_parts()
    }

    /// Ends the file that was begun last.
    pub fn end(&mut self) {
        if let Some(file) = self.window.files.last_mut() {
            file.is_last = true;
        }
    }
}
