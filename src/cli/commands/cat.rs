//! `backstay cat`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome};
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::{output, session};
use crate::error::{Error, Result};
use crate::format::directory::{Codec, FrameEntry};
use crate::format::pack::PackKind;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{ChunkId, PackId, SegmentId};
use crate::repo::coord::{Coordination, LeaseView};
use crate::repo::snapshots::Snapshot;
use crate::repo::{Repository, format_time, layout, pack_reader, segments};
use crate::store::ListItem;

/// Print an object of the repository, decrypted and decoded
#[derive(Debug, Args)]
#[command(
    long_about = "Print an object of the repository, decrypted and decoded, as JSON. For the curious, and \
    to find out what is wrong. Keys and passwords are never printed."
)]
pub struct CatArgs {
    #[command(subcommand)]
    object: Object,
}

#[derive(Debug, Subcommand)]
enum Object {
    /// The configuration
    Config,
    /// A snapshot's manifest
    Snapshot {
        /// An id, its beginning, or "latest"
        #[arg(value_name = "SNAPSHOT")]
        id: String,
    },
    /// A pack's directory: its frames and chunks
    Pack {
        /// An id, or its beginning
        #[arg(value_name = "PACK")]
        id: String,
    },
    /// Who is at work on the repository: all leases
    Leases,
    /// Packs that a prune has condemned and not deleted yet: all generations
    Gc,
    /// An index segment: which packs it lists
    Index {
        /// An id, or its beginning; all segments' ids are printed without one
        #[arg(value_name = "SEGMENT")]
        id: Option<String>,
    },
}

pub fn run(settings: &Settings, args: &CatArgs) -> Result<Outcome, Failure> {
    let repo = std::sync::Arc::new(session::open_without_copies(settings)?);
    match &args.object {
        Object::Config => output::print_json(repo.config())?,
        Object::Snapshot { id } => {
            let Snapshot { id, manifest } = SelectionArgs::default().find(&repo, id)?;
            let mut value = serde_json::to_value(&manifest)?;
            if let Some(fields) = value.as_object_mut() {
                fields.insert("id".to_owned(), json!(id.to_hex()));
            }
            output::print_json(&value)?;
        }
        Object::Pack { id } => output::print_json(&pack(&find_pack(&repo, id)?))?,
        Object::Leases => output::print_json(&leases(&Coordination::new(&repo))?)?,
        Object::Gc => output::print_json(&generations(&Coordination::new(&repo))?)?,
        Object::Index { id: None } => {
            let (ids, _) = segments::ids(&repo)?;
            output::print_json(&ids.iter().map(SegmentId::to_hex).collect::<Vec<_>>())?;
        }
        Object::Index { id: Some(id) } => {
            let (ids, _) = segments::ids(&repo)?;
            let hex = session::only_match("index segment", ids.iter().map(SegmentId::to_hex), id)?;
            let id = SegmentId::from_hex(&hex).map_err(|error| Error::Internal(error.to_string()))?;
            output::print_json(&segment(&id, &segments::load(&repo, &id)?))?;
        }
    }
    Ok(Outcome::Done)
}

fn leases(coordination: &Coordination) -> Result<Vec<Value>> {
    let lease = |lease: &LeaseView| {
        json!({
            "id": lease.id.to_hex(),
            "started": format_time(lease.started()),
            "renewed": format_time(lease.newest),
            // Nothing where it cannot be read.
            "says": lease.record,
        })
    };
    Ok(coordination.leases()?.iter().map(lease).collect())
}

fn generations(coordination: &Coordination) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for id in coordination.generation_ids()? {
        if let Some(packs) = coordination.generation(&id)? {
            let packs: Vec<String> = packs.iter().map(PackId::to_hex).collect();
            all.push(json!({"id": id.to_hex(), "packs": packs}));
        }
    }
    Ok(all)
}

fn find_pack(repo: &Repository, prefix: &str) -> Result<PackRecord> {
    let mut packs = Vec::new();
    repo.store().list(layout::PACKS, &mut |item| {
        if let ListItem::Object(info) = item {
            packs.push((info.name.last_component().to_owned(), info.size));
        }
    })?;
    let hex = session::only_match("pack", packs.iter().map(|(id, _)| id.clone()), prefix)?;
    let size = packs.iter().find(|(id, _)| *id == hex).map_or(0, |(_, size)| *size);
    let id = PackId::from_hex(&hex).map_err(|_| Error::NotFound { what: format!("pack {prefix}") })?;
    pack_reader::read_directory(repo, &id, size)
}

fn kind(kind: PackKind) -> &'static str {
    match kind {
        PackKind::Data => "data",
        PackKind::Metadata => "metadata",
    }
}

fn pack(record: &PackRecord) -> Value {
    json!({
        "id": record.id.to_hex(),
        "size": record.size,
        "kind": kind(record.kind),
        "salt": hex::encode(record.salt),
        "frames": record.directory.frames.iter().map(frame).collect::<Vec<_>>(),
    })
}

fn frame(frame: &FrameEntry) -> Value {
    let codec = match frame.codec {
        Codec::Raw => "raw",
        Codec::Zstd => "zstd",
        Codec::ZstdDelta => "zstd_delta",
        Codec::Patch => "patch",
    };
    let chunks = frame.chunks.iter().map(|chunk| json!({"id": chunk.id.to_hex(), "len": chunk.len}));
    json!({
        "offset": frame.extent.offset(),
        "stored_len": frame.extent.len(),
        "raw_len": frame.raw_len,
        "codec": codec,
        "depth": frame.depth,
        "bases": frame.bases.iter().map(ChunkId::to_hex).collect::<Vec<_>>(),
        "chunks": chunks.collect::<Vec<_>>(),
    })
}

fn segment(id: &SegmentId, segment: &Segment) -> Value {
    let packs = segment.packs.iter().map(|pack| {
        json!({
            "id": pack.id.to_hex(),
            "size": pack.size,
            "kind": kind(pack.kind),
            "frames": pack.directory.frames.len(),
            "chunks": pack.directory.chunk_count(),
        })
    });
    json!({
        "id": id.to_hex(),
        "supersedes": segment.supersedes.iter().map(SegmentId::to_hex).collect::<Vec<_>>(),
        "dropped": segment.dropped.iter().map(PackId::to_hex).collect::<Vec<_>>(),
        "packs": packs.collect::<Vec<_>>(),
    })
}
