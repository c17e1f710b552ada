//! The program `backstay`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay::cli::main()
}
