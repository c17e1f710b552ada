//! Changed files become tasks, and tell their directory when they are done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::Scope;

use crate::backup::directory::Directory;
use crate::backup::file::{self, ChangedFile};
use crate::backup::walk::Walker;
use crate::limits::{FILE_TASK_MAX_BYTES, FILE_TASK_MAX_FILES};

/// Changed files of a directory, gathered until they are worth a task.
pub struct FileTasks<'s, 'a, 'd> {
    walker: Walker<'s, 'a>,
    directory: &'d Arc<Directory<'a>>,
    files: Vec<ChangedFile>,
    bytes: u64,
}

impl<'s, 'a: 's, 'd> FileTasks<'s, 'a, 'd> {
    /// For the files of `directory`.
    pub fn new(walker: Walker<'s, 'a>, directory: &'d Arc<Directory<'a>>) -> Self {
        Self { walker, directory, files: Vec::new(), bytes: 0 }
    }

    /// Adds a file; with enough of them a task begins.
    pub fn push(&mut self, file: ChangedFile, scope: &Scope<'s>) {
        self.bytes = self.bytes.saturating_add(file.stat.size);
        self.files.push(file);
        if self.files.len() >= FILE_TASK_MAX_FILES || self.bytes >= FILE_TASK_MAX_BYTES {
            self.flush(scope);
        }
    }

    /// Begins a task for what is gathered.
    pub fn flush(&mut self, scope: &Scope<'s>) {
        if self.files.is_empty() {
            return;
        }
        self.bytes = 0;
        let files = std::mem::take(&mut self.files);
        let directory = Arc::clone(self.directory);
        let walker = self.walker;
        directory.pending.fetch_add(1, Ordering::Relaxed);
        scope.spawn(move |scope| {
            let done = Done { walker, directory: Arc::clone(&directory) };
            file::take_files(scope, walker.context, &directory, files, done);
        });
    }
}

/// Tells a directory that a task is done.
#[derive(Clone)]
pub struct Done<'s, 'a> {
    walker: Walker<'s, 'a>,
    directory: Arc<Directory<'a>>,
}

impl<'s, 'a: 's> Done<'s, 'a> {
    /// The task is done; its entries are in their places.
    pub fn done(self, scope: &Scope<'s>) {
        if !self.walker.context.is_over() {
            self.walker.one_done(scope, self.directory);
        }
    }

    /// Another task of the same window begins.
    pub fn another(&self) -> Self {
        self.directory.pending.fetch_add(1, Ordering::Relaxed);
        self.clone()
    }
}
