//! The protocol against itself: writers, forgets and prunes of several hosts over one store, all requests
//! interleaved by a seed, with crashes, lost answers, late and repeated puts, and systems that sleep.
//!
//! The protocol's code is the real one. The data is a tiny model: see `model`. After each run every visible
//! snapshot must be readable, and after quiet prunes nothing that nobody needs may be left.
//!
//! `BACKSTAY_SIM_SEEDS=1000000` runs more seeds, `BACKSTAY_SIM_SEED=7` one of them, with all that happens.

mod collector;
mod merge;
mod model;
mod reader;
mod rebuilder;
mod tests;
mod world;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result, StoreErrorKind};
use crate::format::lease::LeaseRole;
use crate::observe::StopFlag;
use crate::repo::coord::sabotage::Sabotage;
use crate::repo::coord::{Coordination, Outcome, PruneOptions, Timing, prune};
use crate::repo::layout;
use crate::store::reserve::{self, RESERVE, ReserveStore};
use crate::store::{ObjectName, Store};

use collector::ModelCollector;
use merge::{SEGMENTS_MIN, merge};
use model::{ModelIndex, Truth, encode_snapshot, snapshot_id, snapshots, tree};
use reader::{Reader, Way};
use rebuilder::rebuild;
use world::{Climate, Plain, Rng, SimStore, SimSurroundings, World};
use writer::Host;

/// One seed's run.
pub struct Simulation {
    world: Arc<World>,
    sabotage: Option<Sabotage>,
    rng: Rng,
}

/// What an actor does.
#[derive(Debug, Clone, Copy)]
enum Part {
    Write { runs: u64, unchanged: u64, is_newer: bool },
    Forget { runs: u64 },
    Edit { runs: u64 },
    Prune { runs: u64, repacks: bool, waits: bool, merges: bool },
    Read { runs: u64, way: Way },
    Rebuild { runs: u64 },
}

type Job = Box<dyn FnOnce() + Send>;

fn coordination(
    world: &Arc<World>,
    me: usize,
    store: Arc<dyn Store>,
    sabotage: Option<Sabotage>,
    is_newer: bool,
) -> Arc<Coordination> {
    Arc::new(Coordination {
        store,
        envelope: Arc::new(Plain { is_newer }),
        surroundings: Arc::new(SimSurroundings { world: Arc::clone(world), me }),
        timing: Timing { lease: Duration::from_millis(world.lease_ms) },
        keeps: false,
        sabotage,
    })
}

/// An index that knows nothing yet.
fn index(sabotage: Option<Sabotage>) -> ModelIndex {
    ModelIndex { lists_once: sabotage == Some(Sabotage::SegmentsListedOnce), ..ModelIndex::default() }
}

/// Packs of a generation where there is no room: few, so that there are more.
const PACKS_FULL: usize = 2;

/// Prunes of one host.
struct Prunes {
    coordination: Arc<Coordination>,
    collector: ModelCollector,
    options: PruneOptions,
    /// Puts segments together afterwards.
    merges: bool,
}

impl Prunes {
    fn new(world: &Arc<World>, me: usize, sabotage: Option<Sabotage>, repacks: bool) -> Self {
        let store: Arc<dyn Store> = Arc::new(ReserveStore::new(Arc::new(SimStore::new(world, me))));
        let coordination = coordination(world, me, Arc::clone(&store), sabotage, false);
        let collector =
            ModelCollector { world: Arc::clone(world), store, index: index(sabotage), sabotage, repacks };
        let options = PruneOptions { unattended: false, packs_full: PACKS_FULL, ..PruneOptions::default() };
        Self { coordination, collector, options, merges: true }
    }

    /// One, as the program does it.
    fn run(&mut self) -> Result<Outcome> {
        let Self { coordination, collector, options, merges } = self;
        let outcome = prune(coordination, collector, options, &StopFlag::new())?;
        let ModelCollector { world, store, index, sabotage, .. } = collector;
        if *merges {
            merge(world, &**store, coordination, index, *sabotage)?;
        }
        if !reserve::is_there(&**store)? {
            // Or there is no room for it.
            let _ = make_reserve(&**store);
        }
        Ok(outcome)
    }
}

fn make_reserve(store: &dyn Store) -> Result<()> {
    Ok(store.put(&ObjectName::parse(RESERVE).unwrap(), Vec::new())?)
}

impl Simulation {
    /// A world by its seed.
    pub fn new(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let climate = Climate {
            faults: [0, 5, 30][usize::try_from(rng.below(3)).unwrap()],
            leaps: [0, 10, 60][usize::try_from(rng.below(3)).unwrap()],
            stays: [0, 500, 800, 950][usize::try_from(rng.below(4)).unwrap()],
            coarse: rng.chance(300),
            local: rng.chance(300),
            rests: [0, 0, 100][usize::try_from(rng.below(3)).unwrap()],
            stops: [0, 200, 700][usize::try_from(rng.below(3)).unwrap()],
        };
        let sleeping = sabotage == Some(Sabotage::FenceClockSleeps);
        let world = World::new(Rng::new(rng.next()), climate, Duration::from_secs(1800), sleeping, trace);
        Self { world: Arc::new(world), sabotage, rng }
    }

    /// Snapshots from before, some of them forgotten, so that there is something to prune.
    fn prepare(&mut self) {
        let store = Arc::new(SimStore::new(&self.world, 500));
        make_reserve(&*store).unwrap();
        let coordination = coordination(&self.world, 500, Arc::clone(&store) as Arc<dyn Store>, None, false);
        let mut host = Host {
            world: Arc::clone(&self.world),
            store: Arc::clone(&store),
            coordination,
            index: ModelIndex::default(),
            sabotage: None,
            unchanged: 500,
        };
        for _ in 0..self.rng.below(4) {
            let _ = host.back_up();
        }
        for (id, _) in snapshots(&*store).unwrap_or_default() {
            if self.rng.chance(400) {
                let _ = store.delete(&layout::snapshot(&id).unwrap());
            }
        }
        self.world.skip(2 * self.world.lease_ms);
    }

    fn parts(&mut self, is_full: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        for _ in 0..2 + self.rng.below(2) {
            let (runs, is_newer) = (1 + self.rng.below(3), self.rng.chance(100));
            let unchanged = [300, 600, 900][usize::try_from(self.rng.below(3)).unwrap()];
            parts.push(Part::Write { runs, unchanged, is_newer });
        }
        for _ in 0..1 + self.rng.below(2) {
            parts.push(Part::Forget { runs: 1 + self.rng.below(5) });
        }
        if self.rng.chance(300) {
            parts.push(Part::Edit { runs: 1 + self.rng.below(4) });
        }
        for _ in 0..1 + self.rng.below(2) {
            let repacks = self.rng.chance(if is_full { 900 } else { 300 });
            let (waits, merges) = (self.rng.chance(600), self.rng.chance(500));
            parts.push(Part::Prune { runs: 1 + self.rng.below(3), repacks, waits, merges });
        }
        for chance in [500, 200] {
            if self.rng.chance(chance) {
                let way = [Way::Restore, Way::Mount, Way::Check][usize::try_from(self.rng.below(3)).unwrap()];
                parts.push(Part::Read { runs: 1 + self.rng.below(3), way });
            }
        }
        if self.rng.chance(200) {
            parts.push(Part::Rebuild { runs: 1 + self.rng.below(3) });
        }
        parts
    }

    /// The jobs of all actors, each for a thread of its own.
    fn jobs(&mut self) -> Vec<Job> {
        self.prepare();
        let is_full = self.rng.chance(150);
        let parts = self.parts(is_full);
        if is_full {
            self.world.leave_room(2 + self.rng.below(40));
        }
        parts.into_iter().map(|part| self.job(part)).collect()
    }

    fn job(&self, part: Part) -> Job {
        let (world, sabotage, me) = (Arc::clone(&self.world), self.sabotage, self.world.add_actor());
        Box::new(move || {
            world.enter(me);
            act(&world, me, sabotage, part);
            world.leave(me);
        })
    }

    /// What is wrong after all actors have ended.
    fn verdict(&self) -> std::result::Result<(), String> {
        self.world.remove_overdue();
        let mut broken = Truth::of(&self.world).broken();
        broken.extend(self.world.complaints());
        if !broken.is_empty() {
            return Err(broken.join("\n"));
        }
        self.world.calm_down();
        self.world.note(|| "all is quiet".to_owned());
        for round in 0..3 {
            let outcome = Prunes::new(&self.world, 1000 + round, None, false).run();
            outcome.map_err(|error| format!("a quiet prune failed: {error}"))?;
        }
        let truth = Truth::of(&self.world);
        let mut wrong = truth.broken();
        wrong.extend(truth.leaked());
        for folder in [layout::LEASES, layout::GENERATIONS] {
            wrong.extend(self.world.objects(folder).iter().map(|(name, _)| format!("{name} is left over")));
        }
        if self.world.objects(layout::INDEX).len() >= SEGMENTS_MIN {
            wrong.push("segments are left over".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("after quiet prunes: {}", wrong.join("\n"))) }
    }
}

fn act(world: &Arc<World>, me: usize, sabotage: Option<Sabotage>, part: Part) {
    let is_newer = matches!(part, Part::Write { is_newer: true, .. });
    let store = Arc::new(SimStore::new(world, me));
    let coordination = coordination(world, me, Arc::clone(&store) as Arc<dyn Store>, sabotage, is_newer);
    let index = index(sabotage);
    let done = |what: &str, result: String| world.note(|| format!("{me}: {what}: {result}"));
    match part {
        Part::Write { runs, unchanged, .. } => {
            let world = Arc::clone(world);
            let mut host = Host { world, store, coordination, index, sabotage, unchanged };
            for _ in 0..runs {
                let result = host.back_up();
                if let Err(error) = &result
                    && !matches!(error, Error::Interrupted)
                {
                    host.world.complain(format!("backup of {me}: {error}"));
                }
                done("backup", format!("{result:?}"));
            }
        }
        Part::Forget { runs } => {
            for _ in 0..runs {
                let Ok(found) = snapshots(&*store) else { continue };
                for (id, _) in found {
                    if world.chance(500) {
                        let _ = store.delete(&layout::snapshot(&id).unwrap());
                    }
                }
            }
        }
        Part::Edit { runs } => {
            for _ in 0..runs {
                let result = edit(world, &store, &coordination);
                done("edit", format!("{result:?}"));
            }
        }
        Part::Rebuild { runs } => {
            for _ in 0..runs {
                let result = rebuild(world, &store, &coordination);
                if let Err(error) = &result
                    && !matches!(error, Error::Busy { .. })
                {
                    world.complain(format!("rebuild of {me}: {error}"));
                }
                done("rebuild", format!("{result:?}"));
            }
        }
        Part::Read { runs, way } => {
            let world = Arc::clone(world);
            let mut reader = Reader { world, store, coordination, index, sabotage, way };
            for _ in 0..runs {
                let result = reader.read();
                done("read", format!("{way:?} {result:?}"));
            }
        }
        Part::Prune { runs, repacks, waits, merges } => {
            let mut prunes = Prunes::new(world, me, sabotage, repacks);
            prunes.options.wait = Duration::from_secs(if waits { 120 } else { 0 });
            prunes.merges = merges;
            for _ in 0..runs {
                let result = prunes.run();
                if let Err(error) = &result
                    && !matches!(error, Error::Busy { .. })
                {
                    world.complain(format!("prune of {me}: {error}"));
                }
                done("prune", format!("{result:?}"));
            }
        }
    }
}

/// Replaces a snapshot by one with the same tree, as an edit of its labels does.
fn edit(world: &World, store: &SimStore, coordination: &Arc<Coordination>) -> Result<()> {
    let found = snapshots(store)?;
    let pick = usize::try_from(world.below(found.len() as u64)).unwrap();
    let Some((old, chunks)) = found.get(pick) else { return Ok(()) };
    let lease = coordination.acquire(LeaseRole::Reader, "tag", vec![tree(chunks)], None)?;
    let fence = lease.fence();
    let replace = || -> Result<()> {
        let (old, new) = (layout::snapshot(old)?, layout::snapshot(&snapshot_id(world.below(u64::MAX)))?);
        store.info(&old)?;
        fence.confirm()?;
        store.put(&new, vec![encode_snapshot(chunks)])?;
        if store.info(&old).is_err_and(|error| error.kind == StoreErrorKind::NotFound) {
            store.delete(&new)?;
        }
        Ok(store.delete(&old)?)
    };
    let result = replace();
    lease.close(&result);
    result
}
