//! The RocksDB database: its tables, their tuning, opening it, and what its errors mean.
//!
//! Tables (column families):
//!
//! ```text
//! default      chunk id[32]             locations, one after the other
//! directories  u32 pack number (BE)     directory of the pack
//! tables       'h'                      head
//!              'i' u32 pack number (BE) pack info
//!              'p' pack id[32]          u32 pack number
//!              'x' pack id[32]          nothing: dropped, must not be added again
//!              's' segment id[32]       segment
//!              'u' key                  a caller's mark
//! ```

use std::path::Path;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, ErrorKind, FlushOptions, InfoLogger, LogLevel, LruCacheOptions, MergeOperands,
    Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::records::Head;
use crate::error::{Error, Result};
use crate::format::wire::DecodeError;
use crate::id::RepoId;
use crate::limits::{
    INDEX_BLOCK_CACHE_BYTES, INDEX_OPEN_FILES_MAX, INDEX_REPLAY_MAX_BYTES, INDEX_WRITE_BUFFER_BYTES, KIB, MIB,
};

const DIRECTORIES: &str = "directories";
const TABLES: &str = "tables";

/// Options that have no setter. A reused manifest and no flush at recovery save most of the time that
/// opening takes; the identity is in the manifest anyhow.
const MORE_OPTIONS: &str = "avoid_flush_during_recovery=true;avoid_flush_during_shutdown=true;\
     reuse_manifest_on_open=true;write_identity_file=false";

/// Why an operation on the database failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Its bytes are not what was written: delete it and load it again.
    Damaged(String),
    /// Something else that deleting it would not mend.
    Other(Error),
}

impl From<rocksdb::Error> for Failure {
    fn from(error: rocksdb::Error) -> Self {
        let text = error.to_string();
        let damaged = match error.kind() {
            ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::NotSupported => true,
            // A missing file, or a database that someone else laid out. No space, no permission and too many
            // open files are not mended by a rebuild.
            ErrorKind::IOError => text.contains("No such file") || text.contains("Not a directory"),
            ErrorKind::InvalidArgument => true,
            _ => false,
        };
        if damaged { Self::Damaged(text) } else { Self::Other(Error::Index(text)) }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

pub(super) type Attempt<T> = std::result::Result<T, Failure>;

/// How to open a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Writes nothing, so that a command that only reads does not wait for fsyncs.
    Read,
    /// Takes three fsyncs.
    Write,
}

/// An open database.
pub(super) struct Database {
    pub db: DB,
    access: Access,
    read: ReadOptions,
    write: WriteOptions,
}

impl Database {
    /// Opens the database of `repo`, or makes one in an empty folder.
    pub fn open(folder: &Path, repo: RepoId, epoch_of_new: u64, access: Access) -> Attempt<(Self, Head)> {
        let cache = block_cache();
        let tables = [
            ("default", chunk_options(&cache)),
            (DIRECTORIES, directory_options(&cache)),
            (TABLES, table_options(&cache)),
        ];
        let families = tables.map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let is_new = !folder.join("CURRENT").exists();
        if is_new && !is_absent_or_empty(folder) {
            return Err(Failure::Damaged("its CURRENT file is missing".into()));
        }
        let options = database_options()?;
        let access = if is_new { Access::Write } else { access };
        let db = match access {
            Access::Read => DB::open_cf_descriptors_read_only(&options, folder, families, false)?,
            Access::Write => DB::open_cf_descriptors(&options, folder, families)?,
        };
        let mut write = WriteOptions::default();
        write.set_sync(false);
        let database = Self { db, access, read: ReadOptions::default(), write };
        let head = if is_new {
            let head = Head::new(repo, epoch_of_new);
            let mut batch = WriteBatch::default();
            database.put_head(&mut batch, &head)?;
            database.write(batch)?;
            head
        } else {
            let value = database.get(database.tables()?, b"h")?;
            let head = value.as_deref().and_then(Head::decode);
            head.ok_or_else(|| Failure::Damaged("another version wrote it".into()))?
        };
        if head.repo != repo || head.loading {
            return Err(Failure::Damaged("it is of another repository, or half loaded".into()));
        }
        Ok((database, head))
    }

    pub fn can_write(&self) -> bool {
        self.access == Access::Write
    }

    pub fn directories(&self) -> Attempt<&ColumnFamily> {
        self.family(DIRECTORIES)
    }

    pub fn tables(&self) -> Attempt<&ColumnFamily> {
        self.family(TABLES)
    }

    pub fn chunks(&self) -> Attempt<&ColumnFamily> {
        self.family("default")
    }

    fn family(&self, name: &str) -> Attempt<&ColumnFamily> {
        self.db.cf_handle(name).ok_or_else(|| Failure::Damaged(format!("its table {name} is missing")))
    }

    pub fn get<'a>(
        &'a self,
        table: &ColumnFamily,
        key: &[u8],
    ) -> Attempt<Option<rocksdb::DBPinnableSlice<'a>>> {
        Ok(self.db.get_pinned_cf_opt(table, key, &self.read)?)
    }

    /// `use_value` sees the value of each of `keys` (sorted, ascending) in turn.
    pub fn get_sorted<K: AsRef<[u8]>>(
        &self,
        table: &ColumnFamily,
        keys: &[K],
        mut use_value: impl FnMut(usize, Option<&[u8]>),
    ) -> Attempt<()> {
        // Every value pins its block until its batch is done.
        const BATCH: usize = 256;
        let mut number = 0;
        for keys in keys.chunks(BATCH) {
            let values =
                self.db.batched_multi_get_cf_opt(table, keys.iter().map(AsRef::as_ref), true, &self.read);
            for value in values {
                use_value(number, value?.as_deref());
                number += 1;
            }
        }
        Ok(())
    }

    pub fn put_head(&self, batch: &mut WriteBatch, head: &Head) -> Attempt<()> {
        batch.put_cf(self.tables()?, b"h", head.encode());
        Ok(())
    }

    /// One atomic change. It survives a crash of the process; a crash of the machine may lose the last
    /// ones, in order.
    pub fn write(&self, batch: WriteBatch) -> Attempt<()> {
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    /// Makes all changes durable, against a crash of the machine too.
    pub fn sync(&self) -> Attempt<()> {
        Ok(self.db.flush_wal(true)?)
    }

    /// True if the log holds more than a process should replay on opening.
    pub fn has_long_log(&self) -> bool {
        let tables = [self.chunks(), self.directories(), self.tables()].into_iter().flatten();
        let sizes =
            tables.map(|table| self.db.property_int_value_cf(table, "rocksdb.cur-size-all-mem-tables"));
        sizes.flatten().flatten().sum::<u64>() > INDEX_REPLAY_MAX_BYTES
    }

    /// Moves a long log into table files.
    pub fn settle(&self) {
        let (Ok(chunks), Ok(directories), Ok(tables)) = (self.chunks(), self.directories(), self.tables())
        else {
            return;
        };
        if self.can_write() && self.has_long_log() {
            // If it fails, the log still holds everything.
            let _ = self.db.flush_cfs_opt(&[chunks, directories, tables], &FlushOptions::default());
        }
    }
}

fn is_absent_or_empty(folder: &Path) -> bool {
    match folder.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn block_cache() -> Cache {
    let mut options = LruCacheOptions::default();
    options.set_capacity(INDEX_BLOCK_CACHE_BYTES);
    // Two cores: few shards, so that one large partition cannot fill a shard.
    options.set_num_shard_bits(2);
    Cache::new_lru_cache_opts(&options)
}

fn database_options() -> Attempt<Options> {
    let mut options = Options::default().get_options_from_string(MORE_OPTIONS)?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(INDEX_OPEN_FILES_MAX);
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_total_wal_size(2 * INDEX_WRITE_BUFFER_BYTES as u64);
    options.set_manifest_preallocation_size(64 * KIB);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(
        INDEX_WRITE_BUFFER_BYTES,
        false,
    ));
    // The library prints nothing and leaves no log files.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    Ok(options)
}

fn block_options(cache: &Cache) -> BlockBasedOptions {
    let mut options = BlockBasedOptions::default();
    options.set_block_cache(cache);
    options.set_cache_index_and_filter_blocks(true);
    options.set_cache_index_and_filter_blocks_with_high_priority(true);
    options.set_pin_top_level_index_and_filter(true);
    options.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    options.set_format_version(6);
    options
}

fn family_options(write_buffer: usize) -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(write_buffer);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(256 * KIB);
    options.set_target_file_size_base(64 * MIB as u64);
    options.set_max_bytes_for_level_base(128 * MIB as u64);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

/// Ids are random: a filter answers "not here" without a read, nothing compresses, nothing is scanned.
pub(super) fn chunk_options(cache: &Cache) -> Options {
    let mut blocks = block_options(cache);
    blocks.set_hybrid_ribbon_filter(FILTER_BITS_PER_KEY, 1);
    blocks.set_whole_key_filtering(true);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4 * KIB);
    blocks.set_block_size(4 * KIB);
    let mut options = family_options(INDEX_WRITE_BUFFER_BYTES);
    options.set_block_based_table_factory(&blocks);
    options.set_merge_operator_associative("append locations", append_locations);
    options
}

/// Options for files that are written outside of the database and taken into the chunk table.
pub(super) fn chunk_file_options() -> Options {
    chunk_options(&block_cache())
}

/// About 1 % of absent ids cost a read in vain.
const FILTER_BITS_PER_KEY: f64 = 10.0;

fn directory_options(cache: &Cache) -> Options {
    let mut blocks = block_options(cache);
    blocks.set_block_size(16 * KIB);
    let mut options = family_options(INDEX_WRITE_BUFFER_BYTES / 2);
    options.set_block_based_table_factory(&blocks);
    options
}

fn table_options(cache: &Cache) -> Options {
    let mut blocks = block_options(cache);
    blocks.set_hybrid_ribbon_filter(FILTER_BITS_PER_KEY, 1);
    let mut options = family_options(INDEX_WRITE_BUFFER_BYTES / 4);
    options.set_block_based_table_factory(&blocks);
    options
}

/// A pack is added once, so no location can come twice, and appending is enough.
fn append_locations(_key: &[u8], value: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let len = value.map_or(0, <[u8]>::len) + operands.iter().map(<[u8]>::len).sum::<usize>();
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(value.unwrap_or_default());
    for operand in operands {
        out.extend_from_slice(operand);
    }
    Some(out)
}

/// For errors that reach the caller.
pub(super) fn to_error(failure: Failure) -> Error {
    match failure {
        Failure::Damaged(what) => Error::Index(format!("it is damaged and must be loaded again: {what}")),
        Failure::Other(error) => error,
    }
}

/// For errors outside of any table.
pub(super) fn plain<T>(attempt: Attempt<T>) -> Result<T> {
    attempt.map_err(to_error)
}
