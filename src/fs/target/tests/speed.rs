//! What a small file costs; run with `--ignored --nocapture`, on a memory file system.

use std::time::Instant;

use super::*;

#[test]
#[ignore = "a measurement, not a test"]
fn small_files() {
    let base = Path::new("/dev/shm");
    let folder = if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() }.unwrap();
    let (dirs, files) = (2000u32, 10u32);
    let attributes = meta(0o644);
    let data = vec![b'x'; 4000];
    let user = |usage: rustix::time::Timespec| usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9;
    let cpu = || user(rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime));
    let names: Vec<_> = (0..files).map(|file| name(&format!("some-file-{file}.c"))).collect();
    for threads in [1u32, 2] {
        let path = folder.path().join(threads.to_string());
        let root = TargetRoot::create_or_open(&path, TargetOptions::default()).unwrap();
        let (wall, before) = (Instant::now(), cpu());
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (root, names, attributes, data) = (&root, &names, &attributes, &data);
                scope.spawn(move || {
                    for number in (thread..dirs).step_by(threads as usize) {
                        let dir = root.dir().open_or_create_child(&name(&format!("d{number}"))).unwrap();
                        for name in names {
                            assert!(dir.write_file(name, data, attributes).unwrap().is_empty());
                        }
                        dir.finish(&meta(0o755)).unwrap();
                    }
                });
            }
        });
        let per_file = 1e6 / f64::from(dirs * files);
        println!(
            "{threads} threads: {:.2} us a file, {:.2} us of CPU",
            wall.elapsed().as_secs_f64() * per_file,
            (cpu() - before) * per_file
        );
    }
}
