//! Directories on their way, and what hard links need to know.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::entry_name::EntryName;
use crate::format::entry::Metadata;
use crate::fs::target::{Origin, TargetDir};
use crate::limits::LEFTOVER_MIN_AGE;

use super::options::Overwrite;
use super::session::{Session, add};

/// A directory of the target. Its handle is open from the first need until everything in it is done.
pub(super) struct DirNode {
    step: Step,
    state: Mutex<State>,
    /// The walk, children and jobs that are not done yet.
    pending: AtomicUsize,
    /// Names in its listing that look like unfinished ones; nothing where the listing is not known whole.
    kept: Mutex<Option<Vec<EntryName>>>,
}

enum Step {
    Root(PathBuf),
    Below(Arc<DirNode>, EntryName),
}

enum State {
    /// Not needed yet.
    Unopened(Option<Box<Metadata>>),
    Open(Arc<TargetDir>, Option<Box<Metadata>>),
    /// Of a dry run, where the target has no such directory.
    Imagined,
    /// It could not be opened, which was reported.
    Failed,
    Finished,
}

/// Where entries go.
#[derive(Clone)]
pub(super) struct Place {
    pub node: Arc<DirNode>,
    /// Nothing only in a dry run, where the directory does not exist.
    pub dir: Option<Arc<TargetDir>>,
}

impl Place {
    /// True if something may stand there already.
    pub fn may_hold_something(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.origin() == Origin::Existed)
    }
}

impl DirNode {
    /// The target itself. Given `meta`, that of the directory whose contents are put into it, it gets
    /// those attributes; else its own stay as they are, and a new one is as any new directory.
    pub fn root(path: &Path, dir: Option<Arc<TargetDir>>, meta: Option<Metadata>) -> Arc<Self> {
        let state = dir.map_or(State::Imagined, |dir| State::Open(dir, meta.map(Box::new)));
        Arc::new(Self {
            step: Step::Root(path.to_owned()),
            state: Mutex::new(state),
            pending: AtomicUsize::new(1),
            kept: Mutex::new(Some(Vec::new())),
        })
    }

    /// A directory below `self`, held by the caller until [`release`](Self::release).
    pub fn child(self: &Arc<Self>, name: EntryName, meta: Metadata) -> Arc<Self> {
        self.hold();
        Arc::new(Self {
            step: Step::Below(Arc::clone(self), name),
            state: Mutex::new(State::Unopened(Some(Box::new(meta)))),
            pending: AtomicUsize::new(1),
            kept: Mutex::new(Some(Vec::new())),
        })
    }

    /// The listing has this name: if it looks like that of a leftover, it is none.
    pub fn keep(&self, name: &EntryName) {
        if TargetDir::is_unfinished_name(name)
            && let Some(kept) = &mut *self.kept.lock()
        {
            kept.push(name.clone());
        }
    }

    /// Not all names of the listing are known.
    pub fn keep_all(&self) {
        *self.kept.lock() = None;
    }

    /// One more thing in it is not done.
    pub fn hold(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One thing in it is done; with the last one it gets its attributes and is closed.
    pub fn release(self: &Arc<Self>, session: &Session<'_>) {
        let mut node = self;
        while node.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            node.finish(session);
            match &node.step {
                Step::Below(parent, _) => node = parent,
                Step::Root(_) => return,
            }
        }
    }

    fn finish(&self, session: &Session<'_>) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Finished);
        match state {
            State::Open(dir, meta) => {
                add(&session.counts.dirs, u64::from(meta.is_some()));
                let is_left =
                    session.options.overwrite == Overwrite::Never && dir.origin() == Origin::Existed;
                if session.options.dry_run || is_left {
                    return;
                }
                self.remove_leftovers(session, &dir);
                let finished = match (meta, dir.origin()) {
                    (Some(meta), _) => dir.finish(&meta),
                    (None, Origin::Created) => dir.open_up().map(|()| Vec::new()),
                    (None, Origin::Existed) => return,
                };
                match finished {
                    Ok(warnings) => session.attribute_warnings(|| self.path(), &warnings),
                    Err(error) => session.target_error(&self.path(), error),
                }
            }
            State::Imagined if matches!(self.step, Step::Below(..)) => add(&session.counts.dirs, 1),
            _ => {}
        }
    }

    /// Removes what earlier runs left in it, unless another run may be at it.
    fn remove_leftovers(&self, session: &Session<'_>, dir: &TargetDir) {
        if let (Origin::Existed, Some(kept)) = (dir.origin(), &*self.kept.lock()) {
            let age = if session.options.delete { Duration::ZERO } else { LEFTOVER_MIN_AGE };
            if let Err(error) = dir.remove_leftovers(kept, age) {
                session.target_error(&self.path(), error);
            }
        }
    }

    /// Opens it, with those above it where they are not open yet, and makes what is missing. Also says
    /// how many were opened. Nothing if that fails, which is reported once.
    pub fn open(self: &Arc<Self>, session: &Session<'_>) -> (Option<Place>, usize) {
        let mut unopened = Vec::new();
        let mut node = self;
        let mut above = loop {
            match (&*node.state.lock(), &node.step) {
                (State::Unopened(_), Step::Below(parent, _)) => {
                    unopened.push(node);
                    node = parent;
                }
                (State::Open(dir, _), _) => break Some(Arc::clone(dir)),
                (State::Imagined, _) => break None,
                _ => return (None, 0),
            }
        };
        let opened = unopened.len();
        for node in unopened.into_iter().rev() {
            let Step::Below(_, name) = &node.step else { return (None, 0) };
            let result = match &above {
                None => Ok(None),
                Some(dir) if session.options.dry_run => dir.open_child(name).and_then(|found| match found {
                    None => session.pretend_to_clear(dir, name).map(|()| None),
                    found => Ok(found),
                }),
                Some(dir) => dir.open_or_create_child(name).map(Some),
            };
            let mut state = node.state.lock();
            match result {
                Ok(Some(dir)) => {
                    let meta = match &mut *state {
                        State::Unopened(meta) => meta.take(),
                        _ => None,
                    };
                    *state = State::Open(Arc::clone(&dir), meta);
                    above = Some(dir);
                }
                Ok(None) => {
                    *state = State::Imagined;
                    above = None;
                }
                Err(error) => {
                    *state = State::Failed;
                    drop(state);
                    session.target_error(&node.path(), error);
                    return (None, 0);
                }
            }
        }
        (Some(Place { node: Arc::clone(self), dir: above }), opened)
    }

    /// Its handle, opened again if it was closed. Makes nothing.
    pub fn reopen(&self) -> Option<Arc<TargetDir>> {
        let mut names = Vec::new();
        let mut node = self;
        let mut dir = loop {
            if let State::Open(dir, _) = &*node.state.lock() {
                break Arc::clone(dir);
            }
            match &node.step {
                Step::Below(parent, name) => {
                    names.push(name);
                    node = parent;
                }
                Step::Root(_) => return None,
            }
        };
        for name in names.into_iter().rev() {
            dir = dir.open_child(name).ok()??;
        }
        Some(dir)
    }

    /// Its path, for messages.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut node = self;
        let mut path = loop {
            match &node.step {
                Step::Root(path) => break path.clone(),
                Step::Below(parent, name) => {
                    names.push(name);
                    node = parent;
                }
            }
        };
        path.extend(names.into_iter().rev().map(EntryName::as_os_str));
        path
    }

    /// The path of `name` in it, for messages.
    pub fn path_of(&self, name: &EntryName) -> PathBuf {
        let mut path = self.path();
        path.push(name.as_os_str());
        path
    }
}

impl Drop for DirNode {
    /// Without recursion: a chain of directories may be thousands long.
    fn drop(&mut self) {
        let mut step = std::mem::replace(&mut self.step, Step::Root(PathBuf::new()));
        while let Step::Below(parent, _) = step {
            match Arc::into_inner(parent) {
                Some(mut parent) => step = std::mem::replace(&mut parent.step, Step::Root(PathBuf::new())),
                None => break,
            }
        }
    }
}

/// The first name of an inode that has several; the others become hard links to it.
pub(super) struct LinkSource {
    pub node: Arc<DirNode>,
    pub name: EntryName,
    state: AtomicU8,
}

const LINK_UNKNOWN: u8 = 0;
const LINK_USABLE: u8 = 1;

impl LinkSource {
    pub fn new(node: Arc<DirNode>, name: EntryName) -> Arc<Self> {
        Arc::new(Self { node, name, state: AtomicU8::new(LINK_UNKNOWN) })
    }

    /// It holds what the snapshot says.
    pub fn set_usable(&self) {
        self.state.store(LINK_USABLE, Ordering::Release);
    }

    pub fn is_usable(&self) -> bool {
        self.state.load(Ordering::Acquire) == LINK_USABLE
    }
}
