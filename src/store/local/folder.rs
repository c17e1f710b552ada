//! The folder itself: opening, making, probing; and what `object_store` cannot do with its files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::error::{StoreError, StoreErrorKind};
use crate::store::failure::from_io;

/// Permissions of a store's folder: what lies in it is sealed, but its names and sizes tell something.
const FOLDER_MODE: u32 = 0o700;

/// The resolved path of the folder `path`, and the folder.
pub(super) fn open(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => {
            let reason = format!("{} does not exist", path.display());
            StoreError::new(StoreErrorKind::NotFound, "open", "", reason)
        }
        _ => at_path("open", path, &e),
    };
    let root = fs::canonicalize(path).map_err(failed)?;
    if !fs::metadata(&root).map_err(failed)?.is_dir() {
        return Err(not_a_folder("open", path));
    }
    let handle = File::open(&root).map_err(failed)?;
    Ok((root, handle))
}

/// Makes the folder `path` and the parents that it lacks, and syncs what names them.
pub(super) fn make(path: &Path) -> Result<(), StoreError> {
    let absolute = std::path::absolute(path).map_err(|e| at_path("create", path, &e))?;
    let missing: Vec<&Path> = absolute.ancestors().take_while(|p| !p.exists()).collect();
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&absolute);
    made.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => not_a_folder("create", path),
        _ => at_path("create", path, &e),
    })?;
    for parent in missing.iter().filter_map(|folder| folder.parent()) {
        File::open(parent).and_then(|p| p.sync_all()).map_err(|e| at_path("create", parent, &e))?;
    }
    Ok(())
}

/// Fails if nothing can be written into the folder `root`. Asking for permissions would not tell: root
/// has all of them, even on a read-only mount.
pub(super) fn probe(root: &Path) -> Result<(), StoreError> {
    let probed = stage(&root.join("probe")).and_then(|(mut file, path)| {
        let written = file.write_all(b"\n");
        fs::remove_file(&path)?;
        written
    });
    probed.map_err(|e| at_path("create", root, &e))
}

/// Makes the folder `path` if it does not exist, and its entry durable by `sync_parent`, in any case:
/// whoever made it may have been stopped before doing so.
pub(super) fn make_in(path: &Path, sync_parent: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    sync_parent()
}

/// Exactly `len` bytes of `file` from `offset` on.
pub(super) fn read(file: &File, offset: u64, len: u64) -> io::Result<Bytes> {
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut buf: Vec<u8> = Vec::new();
    // An object's length comes from outside: running out of memory must not abort the program.
    buf.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut at = offset;
    while buf.len() < len {
        let spare = rustix::buffer::spare_capacity(&mut buf);
        match rustix::io::pread(file, spare, at) {
            Ok(0) => {
                let reason = "it became shorter while it was read";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Ok(read) => at += read as u64,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    buf.truncate(len);
    Ok(buf.into())
}

/// True if `error` may be how a file system without hard links (FAT, some network ones) says so.
pub(super) fn lacks_hard_links(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|e| [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK].contains(&e))
}

/// Writes `parts` to a new file `path` by a rename that refuses to replace.
pub(super) fn create_by_rename(path: &Path, parts: &[Bytes]) -> io::Result<()> {
    let (mut file, staged) = stage(path)?;
    let result = (|| {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        rustix::fs::renameat_with(CWD, &staged, CWD, path, RenameFlags::NOREPLACE)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    if result.is_err() {
        // Nothing more can be done; what stays behind counts as a leftover.
        let _ = fs::remove_file(&staged);
    }
    result
}

/// A new file beside `path`, with a name as `object_store` gives them.
fn stage(path: &Path) -> io::Result<(File, PathBuf)> {
    for number in 1_u32.. {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged.into())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn not_a_folder(action: &'static str, path: &Path) -> StoreError {
    let reason = format!("{} is not a folder", path.display());
    StoreError::new(StoreErrorKind::Unusable, action, "", reason)
}

fn at_path(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    let mut failure = from_io(action, "", error);
    failure.reason = format!("{}: {}", path.display(), failure.reason);
    failure
}
