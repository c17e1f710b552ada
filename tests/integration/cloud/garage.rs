//! A cluster of three Garage nodes on this machine, nodes of which are killed.
//!
//! Takes minutes, and a server that takes many more to be built: `make test-cluster` installs it, and shows
//! what this prints. The guide about Garage quotes that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::external::installed;
use crate::support::compare::{Tree, capture};
use crate::support::run::{Finished, finish_child};
use crate::support::{Sandbox, files_below, rng, skip, tree};

const BUCKET: &str = "backups";
const SECRET: &str = "5c1915fa04d0b6739675c61bf5907eb0fe3d9c69850c83820f51b4d25d13868c";

/// Longest time that the cluster may take for one step.
const PATIENCE: Duration = Duration::from_secs(300);

struct Node {
    folder: PathBuf,
    s3_port: u16,
    server: Option<Child>,
}

impl Node {
    fn config(&self) -> PathBuf {
        self.folder.join("garage.toml")
    }

    /// The names of the blocks on its disk.
    fn blocks(&self) -> BTreeSet<String> {
        let data = self.folder.join("data");
        if !data.exists() {
            return BTreeSet::new();
        }
        let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let is_hash = |name: &String| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        files_below(&data).into_iter().filter_map(stem).filter(is_hash).collect()
    }
}

struct Cluster {
    program: PathBuf,
    nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|number| self.kill(number));
    }
}

impl Cluster {
    /// Three nodes, each in a zone of its own and each with a copy of everything. Fails where Garage is not
    /// installed.
    fn new() -> Result<Self, String> {
        let program = installed().join("garage/bin/garage");
        if !program.exists() {
            return Err(format!("{} is not installed", program.display()));
        }
        let folder = tempfile::Builder::new().prefix("backstay-garage-").tempdir().unwrap();
        // All are held until all are known, so that they differ.
        let listeners: Vec<_> = (0..6).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        let node = |(number, ports): (usize, &[u16])| {
            let node = Node {
                folder: folder.path().join(format!("node-{}", number + 1)),
                s3_port: ports[0],
                server: None,
            };
            fs::create_dir(&node.folder).unwrap();
            fs::write(node.config(), config(&node.folder, ports[0], ports[1])).unwrap();
            node
        };
        let nodes = ports.chunks(2).enumerate().map(node).collect();
        drop(listeners);
        let mut cluster = Self { program, nodes, _folder: folder };
        (0..3).for_each(|number| cluster.start(number));
        cluster.lay_out();
        Ok(cluster)
    }

    /// Makes the nodes known to each other, and gives each of them a third of the cluster.
    fn lay_out(&self) {
        let ids: Vec<_> =
            (0..3).map(|number| self.garage(number, &["node", "id", "-q"]).trim().to_owned()).collect();
        for id in &ids[1..] {
            self.garage(0, &["node", "connect", id]);
        }
        for (number, id) in ids.iter().enumerate() {
            let short = id.split('@').next().unwrap();
            self.wait_for("the nodes meet", || self.garage(0, &["status"]).contains(&short[..16]));
            let zone = format!("zone-{}", number + 1);
            self.garage(0, &["layout", "assign", short, "-z", &zone, "-c", "10G"]);
        }
        self.garage(0, &["layout", "apply", "--version", "1"]);
        self.wait_for("the layout holds", || self.is_healthy());
    }

    /// Makes a bucket, and a key to it that a user's AWS profile in `home` holds.
    fn open_bucket(&self, home: &Path) {
        self.garage(0, &["bucket", "create", BUCKET]);
        self.garage(0, &["key", "create", "host"]);
        self.garage(0, &["bucket", "allow", "--read", "--write", BUCKET, "--key", "host"]);
        let shown = |what: &str| self.garage(0, &["key", "info", what, "host"]).trim().to_owned();
        let (id, secret) = (shown("--key-id"), shown("--secret-key"));
        fs::create_dir_all(home.join(".aws")).unwrap();
        let profile = format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\nregion = garage\n"
        );
        fs::write(home.join(".aws/credentials"), profile).unwrap();
    }

    fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let log = File::options().create(true).append(true).open(node.folder.join("log")).unwrap();
        let server = Command::new(&self.program)
            .arg("-c")
            .arg(node.config())
            .arg("server")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        node.server = Some(server);
        println!("# node {} starts", number + 1);
        self.wait_for("a node answers", || self.ask(number, &["status"]).is_some());
    }

    /// Without any warning, as a power failure would.
    fn kill(&mut self, number: usize) {
        if let Some(mut server) = self.nodes[number].server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
            println!("# node {} is killed", number + 1);
        }
    }

    /// What Garage's program says to a node; nothing where it fails.
    fn ask(&self, number: usize, args: &[&str]) -> Option<String> {
        let output = Command::new(&self.program)
            .arg("-c")
            .arg(self.nodes[number].config())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`ask`](Self::ask), where it has to succeed.
    fn garage(&self, number: usize, args: &[&str]) -> String {
        self.ask(number, args).unwrap_or_else(|| panic!("garage {} fails", args.join(" ")))
    }

    /// What a node's part in the interface for machines answers.
    fn json(&self, number: usize, call: &str, argument: &str) -> serde_json::Value {
        serde_json::from_str(&self.garage(number, &["json-api", call, argument])).unwrap()
    }

    fn wait_for(&self, what: &str, mut is_done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_done() {
            assert!(begun.elapsed() < PATIENCE, "{what}: not in time\n{}", self.logs());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// True if all nodes reach all others, by the word of each.
    fn is_healthy(&self) -> bool {
        let says_so = |number: usize| self.json(number, "GetClusterHealth", "null")["status"] == "healthy";
        (0..self.nodes.len()).all(says_so)
    }

    /// The last lines of each node's log.
    fn logs(&self) -> String {
        let last = |node: &Node| {
            let log = fs::read_to_string(node.folder.join("log")).unwrap_or_default();
            let from = log.lines().count().saturating_sub(20);
            log.lines().skip(from).collect::<Vec<_>>().join("\n")
        };
        self.nodes.iter().map(last).collect::<Vec<_>>().join("\n---\n")
    }

    /// Brings a node that was away up to date: what it missed is fetched from the others.
    fn heal(&self, number: usize) {
        let begun = Instant::now();
        self.wait_for("all nodes are there again", || self.is_healthy());
        println!("$ garage repair --all-nodes --yes tables");
        self.garage(number, &["repair", "--all-nodes", "--yes", "tables"]);
        self.wait_for("every node knows of every block", || {
            self.of_blocks(number, "rcEntries")
                .is_some_and(|known| known.windows(2).all(|two| two[0] == two[1]))
        });
        println!("# node {} knows what it misses after {:.0?}", number + 1, begun.elapsed());
        // What it has just heard of it fetches after two of the times that a request may take.
        println!("$ garage repair --all-nodes --yes blocks");
        self.garage(number, &["repair", "--all-nodes", "--yes", "blocks"]);
        self.wait_for("nothing is left to be fetched", || {
            let errors = self.of_blocks(number, "resyncErrors");
            self.missing(number).is_empty() && errors.is_some_and(|errors| errors.iter().all(|n| *n == 0))
        });
        println!("# node {} has all blocks after {:.0?}", number + 1, begun.elapsed());
    }

    /// What each node says of its blocks; nothing until all of them answer.
    fn of_blocks(&self, number: usize, what: &str) -> Option<Vec<u64>> {
        let answer = self.json(number, "GetNodeStatistics", "{\"node\": \"*\", \"body\": null}");
        let nodes = answer["success"].as_object().unwrap();
        let of_one = |node: &serde_json::Value| node["blockManagerStats"][what].as_u64().unwrap();
        (nodes.len() == self.nodes.len()).then(|| nodes.values().map(of_one).collect())
    }

    /// Blocks that both other nodes have and this one has not.
    fn missing(&self, number: usize) -> BTreeSet<String> {
        let others: Vec<_> =
            (0..3).filter(|other| *other != number).map(|o| self.nodes[o].blocks()).collect();
        let own = self.nodes[number].blocks();
        others[0].intersection(&others[1]).filter(|block| !own.contains(*block)).cloned().collect()
    }
}

fn config(folder: &Path, s3_port: u16, rpc_port: u16) -> String {
    format!(
        "metadata_dir = \"{folder}/meta\"\n\
         data_dir = \"{folder}/data\"\n\
         db_engine = \"lmdb\"\n\
         replication_factor = 3\n\
         consistency_mode = \"consistent\"\n\
         rpc_timeout_msec = 5000\n\
         rpc_bind_addr = \"127.0.0.1:{rpc_port}\"\n\
         rpc_public_addr = \"127.0.0.1:{rpc_port}\"\n\
         rpc_secret = \"{SECRET}\"\n\
         [s3_api]\n\
         s3_region = \"garage\"\n\
         api_bind_addr = \"127.0.0.1:{s3_port}\"\n",
        folder = folder.display(),
    )
}

/// Shows a command and what it printed, for the guide.
fn show(words: &str, finished: Finished) -> Finished {
    println!("$ backstay {words}\n{}# {}, {:.1?}", finished.both(), finished.status, finished.took);
    finished
}

/// A user of the cluster.
struct User {
    sandbox: Sandbox,
    taken: Vec<(String, Tree)>,
}

impl User {
    /// From here on the node `number` is asked.
    fn asks(&mut self, cluster: &Cluster, number: usize) {
        let port = cluster.nodes[number].s3_port;
        self.sandbox.location = Some(format!("s3:http://127.0.0.1:{port}/{BUCKET}/db1"));
        println!("# the program asks node {}", number + 1);
    }

    fn ids(&self) -> Vec<String> {
        let id = |row: &serde_json::Value| row["id"].as_str().unwrap().to_owned();
        self.sandbox.snapshots_json().iter().map(id).collect()
    }

    /// Changes the source a little.
    fn change(&self, seed: u64) {
        fs::write(self.sandbox.source.join("table"), rng::text(seed, 2_000_000)).unwrap();
        self.sandbox.build(&[tree::noise(format!("new-{seed}"), seed, 12_000_000)]);
    }

    /// Notes the snapshot that was not there `before`, and what the source is.
    fn note(&mut self, before: &[String]) {
        let new: Vec<_> = self.ids().into_iter().filter(|id| !before.contains(id)).collect();
        assert_eq!(new.len(), 1, "one new snapshot expected");
        self.taken.push((new[0].clone(), capture(&self.sandbox.source)));
    }

    fn backs_up(&mut self) {
        let before = self.ids();
        show("backup source", self.sandbox.ok(["backup", self.sandbox.source.to_str().unwrap()]));
        self.note(&before);
    }

    /// Everything that was ever backed up is there and whole, for a machine that knows nothing yet.
    fn finds_all(&self) {
        fs::remove_dir_all(&self.sandbox.cache).unwrap();
        show("check --read-data", self.sandbox.ok(["check", "--read-data"]));
        for (id, tree) in &self.taken {
            self.sandbox.restores_to(id, tree);
        }
        println!("# all {} snapshots were restored and are what the source was", self.taken.len());
    }
}

#[test]
#[ignore = "needs Garage and minutes: make test-cluster"]
fn a_cluster_that_loses_nodes_loses_no_backup() {
    let mut cluster = match Cluster::new() {
        Ok(cluster) => cluster,
        Err(why) => return skip(&format!("{why}: scripts/cluster installs it")),
    };
    let mut user = User { sandbox: Sandbox::empty(), taken: Vec::new() };
    cluster.open_bucket(user.sandbox.root());
    user.asks(&cluster, 0);

    println!("\n## Making the repository");
    show("init", user.sandbox.run(["init"]).exits(1).says("must not replace").says("conditional-create=no"));
    let without = ["init", "--option", "conditional-create=no"];
    show(&without.join(" "), user.sandbox.ok(without));
    show(&without.join(" "), user.sandbox.run(without).exits(1).says("exists"));
    user.sandbox.build(&[tree::noise("image", 1, 20_000_000)]);
    user.change(2);
    user.backs_up();

    println!("\n## A node is killed while a backup runs");
    user.change(3);
    let before = user.ids();
    let held = cluster.nodes[2].blocks().len();
    let command = ["backup", user.sandbox.source.to_str().unwrap(), "--limit-upload", "3000"];
    let mut running = user.sandbox.command(command).spawn().unwrap();
    cluster.wait_for("the backup writes", || cluster.nodes[2].blocks().len() > held);
    cluster.kill(2);
    assert!(running.try_wait().unwrap().is_none(), "the backup was too fast to be disturbed");
    show("backup source --limit-upload 3000", finish_child(running, command.join(" "), None).exits(0));
    user.note(&before);

    println!("\n## Going on with two nodes of three");
    println!("$ garage status\n{}", cluster.garage(0, &["status"]));
    user.change(4);
    user.backs_up();
    user.finds_all();

    println!("\n## One node of three is too few");
    cluster.kill(1);
    user.change(5);
    let failed = user.sandbox.run(["backup", user.sandbox.source.to_str().unwrap()]);
    show("backup source", failed.exits(1).says("run the same command again"));
    cluster.start(1);
    cluster.wait_for("two nodes are enough", || user.sandbox.run(["snapshots"]).status.success());
    user.backs_up();

    println!("\n## The node that was killed first comes back");
    let missing = cluster.missing(2).len();
    assert!(missing > 0, "it missed nothing");
    println!("# node 3 misses {missing} blocks");
    cluster.start(2);
    cluster.heal(2);

    println!("\n## Another node is lost, with its disk");
    cluster.kill(0);
    fs::remove_dir_all(&cluster.nodes[0].folder).unwrap();
    user.asks(&cluster, 2);
    user.finds_all();
    user.change(6);
    user.backs_up();
    let oldest = user.taken.remove(0).0;
    show("forget OLDEST --prune", user.sandbox.ok(["forget", &oldest, "--prune"]));
    user.finds_all();
}
