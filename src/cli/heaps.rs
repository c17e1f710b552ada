//! How glibc hands out memory to many threads.
//!
//! It gives most threads a heap of their own. Where they decode large blocks that are kept for a while and freed
//! by others, each heap grows to its own peak, and a server held twice what its caches may. With few heaps
//! it does not, and is no slower. Programs are told only when they begin, so this one begins once more.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// What glibc reads when a program begins.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Two heaps for all threads.
const FEW: &str = "glibc.malloc.arena_max=2";

/// Begins the program once more with few heaps, in the same process, unless it is told already how many there are.
/// If that fails it goes on as it is.
pub fn use_few() {
    if !cfg!(target_env = "gnu") || std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if let Ok(program) = std::env::current_exe() {
        let _ = Command::new(program).arg0(name).args(args).env(VARIABLE, FEW).exec();
    }
}
