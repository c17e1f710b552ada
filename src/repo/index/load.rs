//! Filling the index from many segments: sorted files that are taken in whole when it is empty, one
//! segment after the other when it is not.

use std::fs;
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard};

use rocksdb::{IngestExternalFileOptions, SstFileWriter, WriteBatch};

use super::Index;
use super::database::{Attempt, Database, chunk_file_options};
use super::records::SegmentDelta;
use super::sort::Sorter;
use super::write::{Sink, Writer};
use crate::error::{Error, Result};
use crate::id::ID_LEN;
use crate::limits::{INDEX_BATCH_BYTES, INDEX_LOAD_FILE_BYTES};

/// A load under way; see [`Index::loader`].
pub struct Loader<'a> {
    index: &'a Index,
    database: RwLockReadGuard<'a, Option<Database>>,
    _writing: MutexGuard<'a, ()>,
    /// Nothing where the index held packs before.
    sorter: Option<Sorter>,
    /// The chunk table lacks what the sorter holds.
    half_loaded: bool,
}

impl<'a> Loader<'a> {
    pub(super) fn new(index: &'a Index, buffer_bytes: usize) -> Result<Self> {
        let writing = super::lock(&index.writing);
        index.make_writable()?;
        let database = index.database.read().unwrap_or_else(PoisonError::into_inner);
        let is_empty = super::lock(&index.head).next_pack == 0;
        let folder = index.slot.folder.join("load");
        let sorter = is_empty.then(|| Sorter::new(folder, buffer_bytes));
        let mut loader = Self { index, database, _writing: writing, sorter, half_loaded: false };
        if loader.sorter.is_some() {
            loader.half_loaded = true;
            loader.index.judge(
                loader
                    .database()
                    .and_then(|db| Writer::new(db, &loader.index.head, Sink::Table).set_loading(true)),
            )?;
        }
        Ok(loader)
    }

    fn database(&self) -> Attempt<&Database> {
        super::opened(&self.database)
    }

    /// Takes one segment, in any order.
    ///
    /// # Errors
    /// After an error a load into an empty index is spoilt: [`Index::clear`] and start again. Into one that is
    /// not, what was added before the error stays.
    pub fn add(&mut self, delta: &SegmentDelta<'_>) -> Result<()> {
        let sink = self.sorter.as_mut().map_or(Sink::Table, Sink::Sorter);
        let result =
            super::opened(&self.database).and_then(|db| Writer::new(db, &self.index.head, sink).apply(delta));
        self.index.judge(result)
    }

    /// Makes what was added visible. A load into an empty index that was not finished is thrown away by the
    /// next [`Index::open`].
    pub fn finish(mut self) -> Result<()> {
        if let Some(sorter) = self.sorter.take() {
            let result = self.database().and_then(|db| {
                fill(db, sorter, self.index.slot.folder.join("load"))?;
                Writer::new(db, &self.index.head, Sink::Table).set_loading(false)
            });
            self.index.judge(result)?;
        }
        self.half_loaded = false;
        Ok(())
    }
}

impl Drop for Loader<'_> {
    fn drop(&mut self) {
        if self.half_loaded {
            self.index.condemn();
        }
    }
}

fn fill(db: &Database, sorter: Sorter, folder: PathBuf) -> Attempt<()> {
    if sorter.is_small() {
        // Not worth a file and its fsync.
        return fill_by_batches(db, sorter);
    }
    let options = chunk_file_options();
    let mut files = Vec::new();
    let mut current: Option<SstFileWriter<'_>> = None;
    sorter.finish(|id, value| -> Attempt<()> {
        let mut writer = match current.take() {
            Some(writer) => writer,
            None => {
                let path = folder.join(format!("{}.sst", files.len()));
                let writer = SstFileWriter::create(&options);
                writer.open(&path)?;
                files.push(path);
                writer
            }
        };
        writer.put(id, value)?;
        if writer.file_size() >= INDEX_LOAD_FILE_BYTES {
            writer.finish()?
        } else {
            current = Some(writer)
        }
        Ok(())
    })?;
    if let Some(mut writer) = current {
        writer.finish()?;
    }
    let mut ingest = IngestExternalFileOptions::default();
    ingest.set_move_files(true);
    if !files.is_empty() {
        db.db.ingest_external_file_opts(&ingest, files)?;
    }
    fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    Ok(())
}

fn fill_by_batches(db: &Database, sorter: Sorter) -> Attempt<()> {
    let mut batch = WriteBatch::default();
    sorter.finish(|id: &[u8; ID_LEN], value| -> Attempt<()> {
        batch.put(id, value);
        if batch.size_in_bytes() < INDEX_BATCH_BYTES {
            return Ok(());
        }
        db.write(std::mem::take(&mut batch))
    })?;
    db.write(batch)
}
