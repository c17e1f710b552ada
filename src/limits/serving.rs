//! Bounds and defaults of browsing: mounts and servers.

use std::num::NonZeroUsize;

use super::{KIB, MIB};

/// Decoded frames that a mount or server keeps: several readers in order, each with what is read ahead.
pub const BROWSE_FRAMES_CACHE_BYTES: usize = 40 * MIB;
/// Decoded frames that delta frames are decoded against.
pub const BROWSE_BASES_CACHE_BYTES: usize = 16 * MIB;
/// Streams whose list of parts is kept after use; of a long one, where its runs begin.
/// Enough for all that is read ahead from file to file.
pub const BROWSE_STREAMS_KEPT: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Runs of parts that are kept, of all streams, at least as many: a run of a long stream covers about 128 MiB, in
/// 160 KiB.
pub const BROWSE_RUNS_KEPT: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Memory that these runs take at most: those of files without holes take 10 MiB.
pub const BROWSE_RUNS_BYTES: usize = 16 * MIB;
/// Most parts of one run, some 70 bytes each: those of a chunk of a list of average size are 2,000, and 130,000 if
/// every other one is a hole of a few bytes.
pub const BROWSE_RUN_PARTS_MAX: usize = 512 * 1024;
/// Memory that the streams take at most whose list of parts is kept: a list of 1 TiB takes 1 MiB.
pub const BROWSE_STREAMS_BYTES: usize = 32 * MIB;
/// Chunks of the lowest list of parts of a stream that can be read at any offset, 32 bytes each: 128 TiB of
/// average chunks.
pub const BROWSE_LISTS_MAX: usize = 1024 * 1024;
/// Chunks of a list of parts that are read to count the holes of a file, whenever its attributes are asked
/// for: 8 GiB of average chunks, and any file that is mostly holes.
pub const BROWSE_STAT_LISTS_MAX: usize = 64;
/// First distance by which a reader in order is read ahead of.
pub const BROWSE_AHEAD_FIRST_BYTES: u64 = MIB as u64;
/// Largest such distance: enough for all threads, and a fifth of the cache.
pub const BROWSE_AHEAD_MAX_BYTES: u64 = 8 * MIB as u64;
/// Reads this far from where the last one ended still count as in order: systems send several at once.
pub const BROWSE_AHEAD_REORDER_BYTES: u64 = MIB as u64;
/// Plaintext bytes that one thread reads ahead at a time: two frames, so that all threads have some.
pub const BROWSE_AHEAD_GROUP_BYTES: u64 = MIB as u64;
/// Groups that may wait to be read ahead; more are left for their reader.
pub const BROWSE_AHEAD_QUEUE: usize = 64;
/// Threads that read ahead, at least: a distant store answers several requests at once.
pub const BROWSE_AHEAD_THREADS_MIN: usize = 4;
/// Readers of one stream that are told apart.
pub const BROWSE_CURSORS_MAX: usize = 8;
/// Bytes of a listing that are looked at together.
pub const BROWSE_LISTING_READ_BYTES: usize = 64 * KIB;
/// In long listings, a name this often is remembered, for finding others.
pub const BROWSE_MILESTONE_BYTES: u64 = 32 * KIB as u64;
/// Longest name of a virtual folder, without the number behind it: what other systems accept too.
pub const BROWSE_NAME_MAX_BYTES: usize = 240;
/// How long a list of snapshots is good for, in seconds.
pub const BROWSE_SNAPSHOTS_SECS: u64 = 5;
/// How often, in seconds, the index is brought up to date because something was not found.
pub const BROWSE_RESYNC_SECS: u64 = 30;
/// How long, in seconds, a forgotten snapshot is kept from being deleted after somebody looked at it last.
pub const BROWSE_IN_USE_SECS: u64 = 3600;
/// Most snapshots that are kept so, the latest: each has some hundred bytes in every object of the lease.
pub const BROWSE_IN_USE_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Different problems of a mount or server that are remembered as said.
pub const SERVE_COMPLAINT_KINDS: usize = 64;
/// How long, in seconds, a problem that was said is not said again.
pub const SERVE_COMPLAINT_SECS: u64 = 60;
/// Problems that are said in that time: a lost store makes every request fail.
pub const SERVE_COMPLAINTS_PER_PERIOD: u32 = 20;
/// How long, in seconds, a kernel may keep what it was told of snapshots' contents: they never change.
pub const MOUNT_CONTENT_SECS: u64 = 24 * 3600;
/// How long, in seconds, it may keep what it was told of the folders above them.
pub const MOUNT_VIRTUAL_SECS: u64 = 1;
/// Entries that are looked up for a kernel's request at a time: about what its buffer holds.
pub const MOUNT_BATCH_ENTRIES: usize = 24;
/// Entries that are kept after use, some 400 bytes each, and at most 3 KiB.
pub const MOUNT_ENTRIES_KEPT: usize = 8192;
/// An entry with larger extended attributes is not kept.
pub const MOUNT_CACHED_XATTR_BYTES: usize = 4 * KIB;
/// Entries that the system may know before it is asked to forget some: each has 49 to 98 bytes in a table. Enough for
/// a large source tree.
pub const MOUNT_INODES_MAX: usize = 256 * 1024;
/// Entries that it is asked to forget at a time, at most.
pub const MOUNT_FORGET_BATCH: usize = 16 * 1024;
/// How often it is looked whether it knows too many, in milliseconds: it looks up some thousands meanwhile.
pub const MOUNT_FORGET_POLL_MS: u64 = 20;
/// Readers who go from file to file that are told apart.
pub const MOUNT_FOLLOWERS_MAX: usize = 4;
/// Files of which the next one is read by who goes from file to file; of a first one, so many behind it are looked up.
pub const MOUNT_FOLLOW_FIRST_FILES: usize = 8;
/// Files that are looked up ahead of who goes from file to file: their lists of parts fit into what is kept.
pub const MOUNT_FOLLOW_FILES: usize = 128;
/// Bytes of them that are decoded ahead: some frames for each thread, and a tenth of the cache.
pub const MOUNT_FOLLOW_BYTES: u64 = 4 * MIB as u64;
/// Entries and folders that are walked for that at a time: a tree of folders without files is not read through.
pub const MOUNT_FOLLOW_STEPS_MAX: usize = 1024;
/// Interrupted listings that go on without a search.
pub const MOUNT_COOKIES_KEPT: usize = 1024;
/// Requests that a kernel sends ahead of time, for all files together.
pub const MOUNT_BACKGROUND_REQUESTS: u16 = 64;
/// Threads that answer requests: two for each core, within these bounds. Most of them wait for the store.
pub const MOUNT_THREADS_MIN: usize = 4;
/// The upper bound.
pub const MOUNT_THREADS_MAX: usize = 16;
/// How far a kernel reads ahead in a file, in KiB: as much as one request may ask for.
pub const MOUNT_READ_AHEAD_KIB: u32 = 1024;
/// How often a mount looks whether it is to end, in milliseconds.
pub const MOUNT_STOP_POLL_MS: u64 = 50;
/// How long it then waits for requests that are being answered, in milliseconds.
pub const MOUNT_STOP_WAIT_MS: u64 = 2000;

/// Longest head of an HTTP request.
pub const WEBDAV_HEAD_MAX_BYTES: usize = 32 * KIB;
/// Most header fields of an HTTP request.
pub const WEBDAV_HEADERS_MAX: usize = 64;
/// Longest body of an HTTP request; clients send a list of properties.
pub const WEBDAV_BODY_MAX_BYTES: usize = 64 * KIB;
/// Bytes of a file that are sent at a time.
pub const WEBDAV_PIECE_BYTES: usize = MIB;
/// Entries of a folder that are read at a time.
pub const WEBDAV_LIST_ENTRIES: usize = 256;
/// Connections at a time; each has a thread, and a piece of a file in memory.
pub const WEBDAV_CONNECTIONS_MAX: usize = 32;
/// How long, in seconds, a client may say nothing.
pub const WEBDAV_IDLE_SECS: u64 = 60;
/// How long, in seconds, it may take nothing of what it is sent.
pub const WEBDAV_WRITE_SECS: u64 = 60;
/// How often a server looks for clients and whether it is to end, in milliseconds.
pub const WEBDAV_STOP_POLL_MS: u64 = 100;
