//! Every bound and default, with its unit in its name and its reason beside it.
//!
//! Constants that are part of the wire format (magic numbers, header lengths) live beside their
//! codec in `format/`; what stands here may change without a new format version. What only mounts and
//! servers need stands in `serving`, what leases and generations need in `leases`, and is used from here.

use std::time::Duration;

pub use leases::*;
pub use serving::*;

mod leases;
mod serving;

/// One kibibyte.
pub const KIB: usize = 1 << 10;
/// One mebibyte.
pub const MIB: usize = 1 << 20;

// --- names -------------------------------------------------------------------------------------

/// Longest name of a directory entry. Linux stops at 255; some network file systems go to 1,023.
pub const ENTRY_NAME_MAX_BYTES: usize = 1023;
/// Longest symlink target. Linux stops at 4,095; others allow more.
pub const SYMLINK_TARGET_MAX_BYTES: usize = 64 * KIB;
/// Largest value of one extended attribute (Linux: `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_MAX_BYTES: usize = 64 * KIB;
/// Most bytes of extended attributes that one entry keeps, names and values: their listing must stay
/// readable.
pub const XATTRS_MAX_BYTES: usize = 8 * MIB;
/// Most extended attributes of one entry (Linux: a name list of 64 KiB, three bytes a name at least).
pub const XATTR_MAX_COUNT: usize = 21_845;
/// Deepest directory nesting that is read or restored. A tree deeper than this is hostile or broken.
pub const TREE_DEPTH_MAX: usize = 4096;

// --- reading a source --------------------------------------------------------------------------

/// Buffer for the names of a directory: one call of the system fills it with about a thousand.
pub const DIR_READ_BUFFER_BYTES: usize = 32 * KIB;
/// Files up to this long are read at once; advice about read-ahead and caching is for longer ones.
pub const ADVISE_MIN_BYTES: u64 = MIB as u64;
/// How often a file is tried whose lease another process still holds.
pub const LEASE_BREAK_ATTEMPTS: u32 = 20;
/// Pause between such attempts.
pub const LEASE_BREAK_WAIT_MS: u64 = 50;
/// User and group names remembered, for each kind of question.
pub const OWNER_CACHE_ENTRIES: usize = 4096;
/// First buffer for the names of extended attributes, and for a value. The system allocates as
/// much as it is offered, at every call; most files have none, or an ACL of some dozen bytes.
pub const XATTR_FIRST_BUFFER_BYTES: usize = 512;
/// Longest list of names of extended attributes (Linux: `XATTR_LIST_MAX`).
pub const XATTR_LIST_MAX_BYTES: usize = 64 * KIB;
/// Exclude and `--files-from` lists are read whole: no longer than this.
pub const LIST_FILE_MAX_BYTES: u64 = 256 * MIB as u64;

// --- chunking ----------------------------------------------------------------------------------

/// Default chunker: smallest chunk but for the last of a stream. See `docs/decisions/0003`.
pub const CHUNK_MIN_BYTES: u32 = 16 * 1024;
/// Default chunker: average chunk.
pub const CHUNK_AVG_BYTES: u32 = 64 * 1024;
/// Default chunker: largest chunk.
pub const CHUNK_MAX_BYTES: u32 = 256 * 1024;
/// No repository may ask for larger chunks: a chunk is held in memory whole.
pub const CHUNK_HARD_MAX_BYTES: u32 = 8 * 1024 * 1024;

// --- frames and packs --------------------------------------------------------------------------

/// Plaintext bytes after which a data frame is sealed. Larger frames compress better, smaller ones
/// cost less when one file is read; measured in `docs/benchmarks.md`.
pub const DATA_FRAME_TARGET_BYTES: usize = 512 * KIB;
/// Plaintext bytes after which a metadata frame is sealed.
pub const METADATA_FRAME_TARGET_BYTES: usize = 256 * KIB;
/// No frame decodes to more than this: the decoder's output cap against hostile packs.
pub const FRAME_RAW_MAX_BYTES: usize = 16 * MIB;
/// Bytes that a frame takes at most beyond its plaintext and a 256th of it: its seal, and what zstd may add to bytes
/// that it cannot make smaller.
pub const FRAME_OVERHEAD_BYTES: u64 = 128;
/// Most chunks in one frame.
pub const FRAME_MAX_CHUNKS: usize = 4096;
/// Most bases one delta frame may name.
pub const FRAME_MAX_BASES: usize = 64;
/// Largest prefix the bases of one frame may add up to.
pub const FRAME_PREFIX_MAX_BYTES: usize = 16 * MIB;
/// Deepest chain of delta frames that a reader follows.
pub const DELTA_DEPTH_MAX: u8 = 64;
/// Most frames that reading one chunk may decode, over all bases and all copies that are tried.
pub const DELTA_EFFORT_MAX_FRAMES: u32 = 16 * 1024;
/// Stored bytes after which a data pack is closed.
pub const DATA_PACK_TARGET_BYTES: usize = 24 * MIB;
/// Stored bytes after which a metadata pack is closed.
pub const METADATA_PACK_TARGET_BYTES: usize = 4 * MIB;
/// The same for the first packs of a run to a remote store: a link of 100 MB/s carries one in a tenth of a
/// second.
pub const REMOTE_PACK_FIRST_BYTES: u64 = 8 * MIB as u64;
/// No pack of a run to a remote store is larger than this part of what was stored before, but for the first.
pub const REMOTE_PACK_PARTS: u64 = 8;
/// Chunks after which a pack is closed, however few bytes it has: bounds its directory, and what a segment
/// and the claims of a run hold.
pub const PACK_MAX_CHUNKS: usize = 100_000;
/// New chunks that a dry run remembers, some 60 bytes each. With more, one that comes again much later counts
/// as new again.
pub const DRY_RUN_CLAIMS_MAX: usize = 1 << 20;
/// No pack is larger than this.
pub const PACK_MAX_BYTES: u64 = 512 * MIB as u64;
/// What is read of a pack's end at first, to find its directory: most directories fit.
pub const PACK_TAIL_READ_BYTES: u64 = 64 * KIB as u64;
/// Longest pack directory (plaintext) that a reader accepts.
pub const PACK_DIRECTORY_MAX_BYTES: usize = 64 * MIB;
/// zstd level of self-contained frames: the fastest level; frames give the ratio.
pub const ZSTD_LEVEL: i32 = 1;
/// zstd level of manifests and index segments.
pub const SEALED_LEVEL: i32 = 3;
/// zstd level of metadata frames: there is little of it, and it is read often.
pub const ZSTD_METADATA_LEVEL: i32 = 3;

/// zstd level of what a patch of data does not find in its bases: there is little of it.
pub const ZSTD_PATCH_LEVEL: i32 = 6;
/// zstd level of metadata deltas: they are few, and mostly what an incremental of a large tree adds.
pub const ZSTD_METADATA_DELTA_LEVEL: i32 = 9;
/// Largest plaintext of a delta frame of several chunks: whoever reads one of them decodes them all.
pub const DELTA_FRAME_MAX_BYTES: usize = 256 * KIB;
/// Largest prefix of a delta frame that is written.
pub const DELTA_PREFIX_MAX_BYTES: usize = 1024 * KIB;
/// Largest chunk that shares a delta frame with chunks it has nothing to do with.
pub const DELTA_GATHER_MAX_BYTES: usize = 64 * KIB;
/// Deepest chain of delta frames that is written where nothing else is said: reading a chunk decodes as many
/// frames. See `docs/decisions/0015`.
pub const DELTA_WRITE_DEPTH: u8 = 4;
/// Deepest chain of delta frames that may be asked for.
pub const DELTA_WRITE_DEPTH_MAX: u8 = 16;
/// Chunks that are looked at on the way to what a chunk at that depth goes back to.
pub const DELTA_ROOT_STEPS: usize = 128;
/// By how many bytes reading bases from a remote store may cost more than deltas have saved, before a run gives
/// them up: a fraction of a second on a fast link, some minutes on a slow one.
pub const DELTA_LOSS_MAX_BYTES: u64 = 16 * MIB as u64;
/// How far ahead in the old version of a stream its parts are looked at: a deletion up to this length does
/// not lose the place.
pub const DELTA_AHEAD_BYTES: u64 = 1024 * MIB as u64;
/// How far back: an insertion up to this length does not lose the place.
pub const DELTA_BEHIND_BYTES: u64 = 256 * MIB as u64;
/// Most parts of an old stream in memory, some 150 bytes each.
pub const DELTA_WINDOW_PARTS: usize = 64 * 1024;

// --- contents and listings ---------------------------------------------------------------------

/// A content with more parts than this stores its list of parts as chunks of its own.
pub const CONTENT_INLINE_MAX_PARTS: usize = 64;
/// Longest stream: a file system allows no longer file, and `length << 2` must not overflow.
pub const CONTENT_MAX_BYTES: u64 = 1 << 61;
/// Deepest nesting of such lists: 64 KiB lists of 33-byte parts reach any size long before.
pub const CONTENT_MAX_DEPTH: u8 = 8;
/// Chunks of lists that a walk which only looks remembers, some 150 bytes each.
pub const LIST_MEMO_ENTRIES: usize = 100_000;
/// Chunks of the lists of one content that are told apart, 40 bytes each: 100 TB of it have as many.
pub const LIST_CHUNKS_TOLD_APART: usize = 1_000_000;
/// How often, on average, a chunk of a list may come after another one than before. Repeated data give the
/// same chunks in the same order; more than this is made to keep a reader busy.
pub const LIST_REPEATS_MAX: u64 = 4;
/// Bytes of such repetitions that are never too many.
pub const LIST_REPEATS_FREE_BYTES: u64 = 4 * MIB as u64;
/// Directory entries that are read, compared and stored at a time.
pub const LISTING_WINDOW_ENTRIES: usize = 4096;
/// One encoded directory entry is never longer: extended attributes are its largest part.
pub const LISTING_ENTRY_MAX_BYTES: usize = 16 * MIB;

// --- small sealed objects ----------------------------------------------------------------------

/// Largest label of a key slot, sealed.
pub const KEY_LABEL_MAX_BYTES: usize = 64 * KIB;
/// Longest password slot that is read: its label, and less than a KiB of the rest. Slots are read before anything is
/// known of the store, all of them at once.
pub const KEY_SLOT_MAX_BYTES: u64 = KEY_LABEL_MAX_BYTES as u64 + 4 * KIB as u64;
/// Largest plaintext of a config, manifest or index segment.
pub const SEGMENT_MAX_BYTES: usize = 256 * MIB;
/// New chunks after which a running backup publishes an index segment and forgets them in memory.
pub const SEGMENT_TARGET_CHUNKS: usize = 100_000;

/// Largest sealed manifest that is kept on this machine: most take a kilobyte.
pub const MANIFEST_CACHED_MAX_BYTES: u64 = MIB as u64;
/// All of them together, for each repository: a hundred thousand snapshots or so.
pub const MANIFEST_CACHE_MAX_BYTES: u64 = 128 * MIB as u64;

// --- writing ---------------------------------------------------------------------------------------

/// Packs of file data that are filled at a time: their order does not give chunk order away.
pub const OPEN_DATA_PACKS: usize = 2;
/// New plaintext bytes of a run after which the second pack is opened: a small run makes one pack.
pub const SECOND_PACK_AFTER_BYTES: u64 = 8 * MIB as u64;
/// Packs that are written to the store at once.
pub const UPLOAD_THREADS: usize = 2;
/// Most packs that are written at once to a store that takes more at a time; each is in memory.
pub const UPLOAD_THREADS_MAX: usize = 4;
/// Bytes of a large file or stream that are hashed, compressed and sealed by one task.
pub const READ_BATCH_BYTES: usize = MIB;
/// Such tasks that may wait or run at once, for each thread; bounds the memory of a backup.
pub const READ_BATCHES_PER_THREAD: usize = 3;
/// Files up to this size are read by one task whole, larger ones by parallel batches.
pub const SMALL_FILE_MAX_BYTES: u64 = 2 * MIB as u64;
/// Small changed files of a directory that one task reads: enough to be worth the switch.
pub const FILE_TASK_MAX_FILES: usize = 128;
/// Bytes of small changed files of a directory that one task reads.
pub const FILE_TASK_MAX_BYTES: u64 = MIB as u64;

/// How much younger than it is to be the last full may be for the next one: a timer of every night is not
/// exact to the second, and a full that is due must not wait for another night.
pub const FULL_EVERY_SLACK_SECONDS: i64 = 3600;

// --- passwords ---------------------------------------------------------------------------------

/// Argon2id memory, never less (64 MiB).
pub const ARGON2_MIN_MEMORY_KIB: u32 = 64 * 1024;
/// Argon2id passes, never less.
pub const ARGON2_MIN_PASSES: u32 = 3;
/// Argon2id lanes: two threads fill the memory, so unlocking takes half as long.
pub const ARGON2_LANES: u32 = 2;
/// Largest Argon2id memory that is read from a slot (4 GiB): a hostile slot must not take all.
pub const ARGON2_MAX_MEMORY_KIB: u32 = 4 * 1024 * 1024;
/// Most Argon2id passes that are read from a slot.
pub const ARGON2_MAX_PASSES: u32 = 64;
/// Most Argon2id lanes that are read from a slot.
pub const ARGON2_MAX_LANES: u32 = 16;
/// Most password slots that are tried.
pub const KEY_SLOTS_MAX: usize = 256;

// --- index -------------------------------------------------------------------------------------

/// RocksDB block cache: holds the filters and index blocks of the hot levels.
pub const INDEX_BLOCK_CACHE_BYTES: usize = 16 * MIB;
/// RocksDB memtable budget over all column families.
pub const INDEX_WRITE_BUFFER_BYTES: usize = 16 * MIB;
/// Decoded pack directories kept after a hit, by their number of chunks.
pub const INDEX_DIRECTORY_CACHE_CHUNKS: usize = 200_000;
/// Packs whose number, id and first ordinal are kept after use.
pub const INDEX_INFO_CACHE_PACKS: usize = 16 * 1024;
/// Ordinals for each chunk that the index holds, those of dropped packs included; with more the gaps are closed. One bit
/// each in sets of a prune. That costs a hundred bytes for each pack, once the whole index was replaced: with 2 that is
/// nothing beside what adding those packs cost.
pub const INDEX_ORDINALS_PER_CHUNK: u64 = 2;
/// As many may always have been given: a set of them takes 8 KiB, and a small index is not written for nothing.
pub const INDEX_ORDINALS_FREE: u64 = 64 * 1024;
/// Largest batch that a change of the index collects before it writes it; a large pack may exceed it.
pub const INDEX_BATCH_BYTES: usize = 2 * MIB;
/// Chunks that a bulk load sorts in memory before it spills them: 44 bytes each.
pub const INDEX_LOAD_BUFFER_BYTES: usize = 16 * MIB;
/// Size of the table files that a bulk load writes.
pub const INDEX_LOAD_FILE_BYTES: u64 = 64 * MIB as u64;
/// Table files that stay open.
pub const INDEX_OPEN_FILES_MAX: i32 = 256;
/// Changes up to this size are left in the log at the end, for the next process to replay; more are
/// flushed, which costs several fsyncs.
pub const INDEX_REPLAY_MAX_BYTES: u64 = MIB as u64;
/// How many processes of one machine may use one repository's cached index at once.
pub const INDEX_SLOTS_MAX: usize = 16;
/// Depths of frames that are kept while bases are looked for, one byte for each chunk of packs that hold deltas:
/// enough that few packs are decoded twice.
pub const BASES_DEPTHS_MAX_BYTES: usize = 64 * MIB;
/// What the index remembers of deltas that cannot be read, one bit for each chunk of their packs. More than that
/// is looked for again by each backup.
pub const UNREADABLE_MARK_MAX_BYTES: usize = 16 * MIB;

// --- reading and restoring ---------------------------------------------------------------------

/// Decoded frames kept for neighbours.
pub const FRAME_CACHE_BYTES: usize = 16 * MIB;
/// Packs whose key and directory a reader keeps at hand.
pub const OPEN_PACKS_KEPT: usize = 64;
/// Their chunks together, some 36 bytes each; a pack of small files has 100,000.
pub const OPEN_PACK_CHUNKS_KEPT: usize = 200_000;
/// Frames this close together are fetched by one read, gap included.
pub const READ_COALESCE_GAP_BYTES: u64 = 64 * KIB as u64;
/// The same for reads of a remote store of which many are under way. A restore of a kernel tree made 1,028 requests
/// for 332 MB with 128 KiB, and 277 for 510 MB with 512 KiB: on a link of 50 ms and 100 MB/s the former wait for
/// round trips, the latter for bytes.
pub const READ_REMOTE_GAP_BYTES: u64 = 256 * KIB as u64;
/// What is read at least of a remote store, where reads come one by one: what a fast link carries in the time that
/// a request costs, a round trip divided by the requests under way (50 ms, 8 requests, 100 MB/s).
pub const READ_REMOTE_LEAST_BYTES: u64 = 512 * KIB as u64;
/// Largest coalesced read.
pub const READ_COALESCE_MAX_BYTES: u64 = 4 * MIB as u64;
/// Stored frames of a remote store that came with others, kept until they are asked for.
pub const EARLY_FRAMES_BYTES: usize = 16 * MIB;
/// Readers that go through a pack frame by frame and are remembered.
pub const EARLY_STREAMS_KEPT: usize = 64;
/// File parts a restore plans at a time; bounds the memory of a plan.
pub const RESTORE_WINDOW_PARTS: usize = 32_768;
/// Files a restore plans at a time.
pub const RESTORE_WINDOW_FILES: usize = 8_192;
/// Directories a restore opens for one window; those of five windows may be open at a time, and those
/// above the current one.
pub const RESTORE_WINDOW_DIRS: usize = 512;
/// Parts of a restore's first window, so that writing begins at once; the next ones double.
pub const RESTORE_FIRST_WINDOW_PARTS: usize = 512;
/// Plaintext bytes of the frames that one read fetches: what a thread takes on at a time.
pub const RESTORE_GROUP_RAW_BYTES: u64 = 8 * MIB as u64;
/// Bases that a window plans for, some 100 bytes each; deltas beyond that look for theirs themselves.
pub const RESTORE_WINDOW_BASES: usize = 128 * 1024;
/// Plaintexts of bases that wait for their deltas: neighbours in a file lie in packs that were filled at the
/// same time, and come some 20 MB apart.
pub const RESTORE_BASES_BYTES: usize = 40 * MIB;
/// Stored bytes of a remote store that wait for the frames of a window that need them.
pub const RESTORE_FETCHED_BYTES: usize = 24 * MIB;
/// Symlinks, empty files and the like that a thread takes on at a time.
pub const RESTORE_LOOSE_BATCH: usize = 64;
/// Allocated zeros that are written before the run looks whether it was stopped.
pub const RESTORE_ZEROS_BYTES: u64 = 64 * MIB as u64;
/// Inodes with several names of which a restore remembers the first one, some 200 bytes each; names
/// beyond that become files of their own.
pub const RESTORE_LINKS_MAX: usize = 1_000_000;
/// Decoded frames of listings that a restore keeps.
pub const RESTORE_LISTING_CACHE_BYTES: usize = 8 * MIB;
/// How long nobody has written to what an earlier run left of a file, before another run removes it. One that
/// is at work writes all the time.
pub const LEFTOVER_MIN_AGE: Duration = Duration::from_secs(3600);

/// Copies of a remote repository's metadata packs that stay on this machine: the metadata of some
/// ten million files.
pub const OBJECT_CACHE_MAX_BYTES: u64 = 1024 * MIB as u64;
/// No larger object is copied: metadata packs are 4 MiB.
pub const OBJECT_CACHE_ENTRY_MAX_BYTES: u64 = 64 * MIB as u64;

// --- checking ----------------------------------------------------------------------------------

/// References that a walk collects before it looks them up together, for each thread.
pub const REACH_BATCH_CHUNKS: usize = 4096;
/// Directories that may wait to be walked; beyond that they are walked at once.
pub const REACH_WAITING_DIRS_MAX: usize = 16 * 1024;
/// Long contents that are remembered as walked, 16 bytes each; more are walked again.
pub const REACH_FINGERPRINTS_MAX: usize = 1_000_000;
/// Bytes that are read at a time of a pack that is read whole. Two such pieces are in memory for each thread, and
/// of a remote store those that are read ahead.
pub const CHECK_READ_BYTES: u64 = 2 * MIB as u64;
/// Frames that a check remembers as intact when it reads them for others, some 16 bytes each; more are opened
/// again.
pub const CHECK_INTACT_FRAMES_KEPT: usize = 1_000_000;
/// Findings that a report quotes; the rest are counted.
pub const CHECK_FINDINGS_KEPT: usize = 1000;
/// Affected paths that a report quotes for each snapshot; the rest are counted.
pub const CHECK_PATHS_KEPT: usize = 20;
/// Missing chunks that a check tells apart, so that each is reported once.
pub const CHECK_MISSING_KEPT: usize = 100_000;
/// Packs whose directories are read together when an index is rebuilt.
pub const REBUILD_BATCH_PACKS: usize = 64;

// --- pruning -----------------------------------------------------------------------------------

/// Percent of a repository's packs that a prune leaves unused unless told otherwise: the last few percent
/// would cost most to free.
pub const PRUNE_MAX_UNUSED_PERCENT: f64 = 5.0;
/// A pack below its target size divided by this is small.
pub const PRUNE_SMALL_PACK_PARTS: u64 = 4;
/// So many small packs of a kind are put together: two months of daily backups. Fewer cost nothing that
/// writing them anew would gain.
pub const PRUNE_SMALL_PACKS_MIN: usize = 64;
/// A frame of which at least so many percent are needed is copied as it is: compressing it again would cost
/// more than it frees.
pub const PRUNE_COPY_PERCENT: u64 = 90;
/// Chunks that only deltas need, of which a prune looks whether plain frames would take less, some 40 bytes
/// each. With more it does not look.
pub const PRUNE_REBASE_CHUNKS_MAX: usize = 500_000;
/// Index segments smaller than this share of the largest are small.
pub const PRUNE_SMALL_SEGMENT_PARTS: usize = 4;
/// So many small index segments are merged.
pub const PRUNE_SEGMENTS_MERGE_MIN: usize = 8;
/// Objects that are deleted at once.
pub const DELETE_THREADS: usize = 8;
/// Bytes of the reserve of a repository: room for the lease, the condemned packs and the segment of a prune
/// on a full disk.
pub const RESERVE_BYTES: usize = MIB;

/// Age in seconds at which a file that a write has left behind in a folder goes: a write lasts half a lease at most
/// before nobody relies on it any more.
pub const LEFTOVERS_AGE_SECONDS: i64 = 24 * 3600;

/// Bytes that a prune writes anew at first on a full disk: they fit into the reserve, with room left for the
/// condemned packs and the segment that drops them.
pub const PRUNE_FULL_REPACK_BYTES: u64 = 256 * KIB as u64;
/// How much more it writes anew in each next round, by the room that was made.
pub const PRUNE_FULL_REPACK_GROWTH: u64 = 4;
/// Rounds of a prune on a full disk: enough for what is written anew to grow beyond any disk.
pub const PRUNE_FULL_ROUNDS: u32 = 20;

// --- finding, comparing, dumping ---------------------------------------------------------------

/// Directories and long files that a search remembers to hold nothing it looks for, some 30 bytes each;
/// others are searched again in the next snapshot.
pub const FIND_BARREN_MAX: usize = 2_000_000;
/// Changes that a comparison holds back to recognise renames, some 300 bytes each.
pub const DIFF_HELD_MAX_CHANGES: usize = 200_000;
/// References to chunks that a comparison looks up together.
pub const DIFF_BATCH_CHUNKS: usize = 4096;
/// Memory for a list that is sorted before it is shown: some two million entries.
pub const LS_SORT_MAX_BYTES: usize = 512 * MIB;
/// Bytes of file contents that a dump decodes at a time; three such batches are in memory.
pub const DUMP_BATCH_BYTES: u64 = 8 * MIB as u64;
/// Entries and chunks of such a batch, where they are small.
pub const DUMP_BATCH_STEPS: usize = 4096;
/// Inodes with several names of which an archive remembers the first one; names beyond that become files
/// of their own.
pub const ARCHIVE_LINKS_MAX: usize = 500_000;
/// Data runs of a sparse file that an archive describes, 16 bytes each; a file with more is written with zeros.
pub const ARCHIVE_SPARSE_MAX_RUNS: usize = 100_000;
/// Level of compression in zip archives: between the fastest and the usual 6, as one thread does it all.
pub const ZIP_LEVEL: u32 = 4;

// --- stores ------------------------------------------------------------------------------------

/// How old a listing may be that was asked for while the repository was opened: a password is typed in this
/// time. Older ones are made again.
pub const EARLY_LISTING_SECONDS: u64 = 10;
/// How often a store request that failed for a passing reason is sent in all.
pub const STORE_ATTEMPTS: u32 = 6;
/// Longest wait before the second attempt; it doubles with every further one. A throttling store
/// recovers within some tenths of a second.
pub const STORE_RETRY_FIRST_WAIT_MS: u64 = 200;
/// No wait is longer: an operator who watches must not take it for a hang.
pub const STORE_RETRY_MAX_WAIT_MS: u64 = 10_000;

/// Requests that a remote store is sent at a time, unless `--connections` says otherwise: enough to hide
/// a round trip of 50 ms behind the others, few enough for a server that counts them.
pub const STORE_CONNECTIONS: usize = 8;
/// Most `--connections`.
pub const STORE_CONNECTIONS_MAX: usize = 256;
/// Threads that drive connections: encryption of what goes over them is all their work.
pub const STORE_RUNTIME_THREADS: usize = 2;
/// Longest time to reach a server.
pub const STORE_CONNECT_TIMEOUT_S: u64 = 15;
/// Longest time in which nothing of a request gets on. Not how long a request may take: 64 MiB need ten
/// minutes on a slow link.
pub const STORE_STALL_TIMEOUT_S: u64 = 60;
/// Longest time in which the place answers that hands out a machine's credentials; it is next door.
pub const STORE_METADATA_TIMEOUT_S: u64 = 3;
/// How often a request to a remote store is sent in all: a server that restarts is back within that time.
pub const STORE_REMOTE_ATTEMPTS: u32 = 8;
/// Bytes that are read ahead: what a link of 100 MB/s carries in three round trips of 100 ms.
pub const STORE_AHEAD_MAX_BYTES: u64 = 32 * MIB as u64;
/// What was read ahead and not asked for in this time makes room for other reads.
pub const STORE_AHEAD_STALE_S: u64 = 30;
/// What is read of the body of an answer that says no.
pub const STORE_ERROR_BODY_MAX_BYTES: usize = 64 * KIB;
/// What is read of an answer that is no object: a listing, credentials. A web server lists a folder in one answer, some
/// 1,000 bytes for each file; a repository of 100 TB has 16,000 packs in each. Buckets list 1,000 objects at a time.
pub const STORE_ANSWER_MAX_BYTES: u64 = 64 * MIB as u64;
/// Bytes of a body that are handed to a connection at a time: how finely progress is seen.
pub const STORE_BODY_PIECE_BYTES: usize = 64 * KIB;
/// Silence that a rate limit makes up for afterwards.
pub const STORE_PACE_BURST_MS: u64 = 100;
/// A clock that is wrong by more than this is told as the reason of a refusal: stores allow 15 minutes.
pub const STORE_CLOCK_SKEW_MAX_S: u64 = 5 * 60;
/// Bytes of a credentials or configuration file of a cloud's own tools that are read.
pub const STORE_PROFILE_MAX_BYTES: u64 = MIB as u64;
/// Files and folders in one folder of a server that are listed: a repository of 100 TB has 16,000 packs in each.
pub const STORE_FOLDER_MAX_ENTRIES: usize = 1_000_000;
/// Objects of a remote store that are listed at once, some 150 bytes each: a repository of 100 TB has 4 million.
pub const STORE_LISTING_MAX_OBJECTS: usize = 16_000_000;
/// Folders above an object at most, below the store's own: `packs`, and `ab` in it.
pub const STORE_FOLDERS_MAX_DEPTH: usize = 2;
/// Bytes of a file in one SFTP message: what every server has to take.
pub const SFTP_PIECE_BYTES: usize = 32 * KIB;
/// SFTP messages that wait for their answers at a time: 2 MiB, which fills 40 MB/s at a round trip of 50 ms,
/// and whose answers fit into the pipe while more is sent.
pub const SFTP_PIECES_IN_FLIGHT: usize = 64;
/// Longest SFTP message that is taken: the protocol's own servers send no longer ones.
pub const SFTP_PACKET_MAX_BYTES: usize = 256 * KIB + 1024;
/// Longest name in a folder of an SFTP server that is taken: file systems have no longer ones. A million of them are
/// 256 MB.
pub const SFTP_NAME_MAX_BYTES: usize = 255;
/// The end of what `ssh` says that is kept, to explain a broken connection.
pub const SFTP_COMPLAINT_MAX_BYTES: usize = 2 * KIB;
/// Milliseconds in which an `ssh` whose connection has ended says why.
pub const SFTP_LAST_WORDS_MS: u64 = 2000;

// --- reporting ---------------------------------------------------------------------------------

/// Files of which a backup says that it stores them again because the repository has lost a part of them; the
/// rest are counted.
pub const STORED_AGAIN_NOTED: u64 = 5;
/// Errors that a snapshot manifest quotes in full; the rest are counted.
pub const MANIFEST_ERRORS_KEPT: usize = 100;

const _: () = {
    assert!(CHUNK_MIN_BYTES < CHUNK_AVG_BYTES && CHUNK_AVG_BYTES < CHUNK_MAX_BYTES);
    assert!(CHUNK_AVG_BYTES.is_power_of_two());
    assert!(CHUNK_MAX_BYTES <= CHUNK_HARD_MAX_BYTES);
    assert!(CHUNK_HARD_MAX_BYTES as usize + DATA_FRAME_TARGET_BYTES <= FRAME_RAW_MAX_BYTES);
    assert!((DATA_PACK_TARGET_BYTES + FRAME_RAW_MAX_BYTES) as u64 <= PACK_MAX_BYTES);
    assert!(FRAME_PREFIX_MAX_BYTES <= FRAME_RAW_MAX_BYTES);
    // A chunk takes 37 bytes of a directory, a frame some more.
    assert!((PACK_MAX_CHUNKS + FRAME_MAX_CHUNKS) * 37 * 2 <= PACK_DIRECTORY_MAX_BYTES);
    assert!(DELTA_PREFIX_MAX_BYTES <= FRAME_PREFIX_MAX_BYTES);
    assert!(DELTA_FRAME_MAX_BYTES <= FRAME_RAW_MAX_BYTES);
    assert!(DELTA_WRITE_DEPTH_MAX <= DELTA_DEPTH_MAX);
};
