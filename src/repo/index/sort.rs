//! External sort of (chunk id, location) pairs in bounded memory: sorted runs in files, merged at the end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use rayon::slice::ParallelSliceMut;

use super::records::{LOCATION_BYTES, Location, PackNo};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ID_LEN};
use crate::limits::KIB;

const ENTRY_BYTES: usize = ID_LEN + LOCATION_BYTES;
/// Id and encoded location, in the order that the chunk table has.
type Entry = [u8; ENTRY_BYTES];

/// Buffer of each run while they are merged.
const RUN_BUFFER_BYTES: usize = 64 * KIB;

/// Collects pairs in any order, and gives them back sorted by id.
pub(super) struct Sorter {
    /// Where runs are spilled; made when the first one is.
    folder: PathBuf,
    buffer: Vec<Entry>,
    capacity: usize,
    runs: Vec<PathBuf>,
    forgotten: HashSet<PackNo>,
}

impl Sorter {
    /// Holds up to `buffer_bytes` in memory.
    pub fn new(folder: PathBuf, buffer_bytes: usize) -> Self {
        let capacity = buffer_bytes / ENTRY_BYTES;
        Self { folder, buffer: Vec::new(), capacity, runs: Vec::new(), forgotten: HashSet::new() }
    }

    /// True while nothing had to be spilled.
    pub fn is_small(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn add(&mut self, id: &ChunkId, location: Location) -> Result<()> {
        if self.buffer.len() >= self.capacity {
            self.spill()?;
        }
        let mut entry = [0; ENTRY_BYTES];
        let (head, tail) = entry.split_at_mut(ID_LEN);
        head.copy_from_slice(id.as_bytes());
        tail.copy_from_slice(&location.encode());
        self.buffer.push(entry);
        Ok(())
    }

    /// Leaves out every location in this pack, added before or after.
    pub fn forget_pack(&mut self, no: PackNo) {
        self.forgotten.insert(no);
    }

    fn spill(&mut self) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create folder", &self.folder))?;
        let path = self.folder.join(format!("run-{}", self.runs.len()));
        self.buffer.par_sort_unstable();
        let mut file = File::create(&path).map_err(Error::io("create", &path))?;
        file.write_all(self.buffer.as_flattened()).map_err(Error::io("write", &path))?;
        self.buffer.clear();
        self.runs.push(path);
        Ok(())
    }

    /// Hands `each` every id once, ascending, with its locations as the chunk table holds them.
    pub fn finish<E: From<Error>>(
        mut self,
        mut each: impl FnMut(&[u8; ID_LEN], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let forgotten = std::mem::take(&mut self.forgotten);
        let mut group = Group { id: None, value: Vec::new(), forgotten: &forgotten, each: &mut each };
        if self.is_small() {
            self.buffer.par_sort_unstable();
            for entry in &self.buffer {
                group.push(entry)?;
            }
            return group.flush();
        }
        self.spill()?;
        self.buffer = Vec::new();
        let mut runs = Vec::with_capacity(self.runs.len());
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        for (number, path) in self.runs.iter().enumerate() {
            let mut run = Run::open(path)?;
            if let Some(entry) = run.next()? {
                heap.push(Reverse((entry, number)));
            }
            runs.push(run);
        }
        while let Some(mut top) = heap.peek_mut() {
            let Reverse((entry, number)) = *top;
            group.push(&entry)?;
            match runs.get_mut(number).map(Run::next).transpose()?.flatten() {
                Some(next) => *top = Reverse((next, number)),
                None => drop(std::collections::binary_heap::PeekMut::pop(top)),
            }
        }
        group.flush()
    }
}

/// Brings the locations of one id together.
struct Group<'a, F> {
    id: Option<[u8; ID_LEN]>,
    value: Vec<u8>,
    forgotten: &'a HashSet<PackNo>,
    each: &'a mut F,
}

impl<E: From<Error>, F: FnMut(&[u8; ID_LEN], &[u8]) -> Result<(), E>> Group<'_, F> {
    fn push(&mut self, entry: &Entry) -> Result<(), E> {
        let (Some((id, rest)), Some(location)) =
            (entry.split_first_chunk::<ID_LEN>(), entry.last_chunk::<LOCATION_BYTES>())
        else {
            return Err(Error::Internal("the length of an entry".into()).into());
        };
        if !self.forgotten.is_empty() && self.forgotten.contains(&Location::decode(location).pack) {
            return Ok(());
        }
        if self.id != Some(*id) {
            self.flush()?;
            self.id = Some(*id);
        }
        self.value.extend_from_slice(rest);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), E> {
        if let Some(id) = self.id.take() {
            (self.each)(&id, &self.value)?;
            self.value.clear();
        }
        Ok(())
    }
}

struct Run {
    file: BufReader<File>,
    path: PathBuf,
}

impl Run {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // Its blocks are freed as soon as the merge is done, whatever happens.
        fs::remove_file(path).map_err(Error::io("remove", path))?;
        Ok(Self { file: BufReader::with_capacity(RUN_BUFFER_BYTES, file), path: path.to_path_buf() })
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        let mut entry = [0; ENTRY_BYTES];
        match self.file.read_exact(&mut entry) {
            Ok(()) => Ok(Some(entry)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }
}
