//! The rules of `docs/architecture.md` that a machine can hold.

mod source;

use std::path::{Path, PathBuf};

use source::{Source, item_end, read_all, without_comments_and_literals, words};

/// Every module and its rank: a module uses only modules of a lower rank.
const RANKS: &[(&str, u8)] = &[
    ("id", 0),
    ("extent", 0),
    ("entry_name", 0),
    ("limits", 0),
    ("env", 0),
    ("observe", 0),
    ("error", 0),
    ("format", 1),
    ("chunk", 1),
    ("compress", 1),
    ("crypto", 1),
    ("seal", 2),
    ("store", 2),
    ("fs", 2),
    ("repo", 3),
    // Below `mount` and `webdav`, which serve what it reads.
    ("browse", 4),
    ("backup", 4),
    ("restore", 4),
    ("check", 4),
    ("stats", 4),
    ("prune", 4),
    ("forget", 4),
    ("edit", 4),
    ("rebuild_index", 4),
    ("find", 4),
    ("diff", 4),
    ("dump", 4),
    ("mount", 5),
    ("webdav", 5),
    ("cli", 6),
    ("lib", 7),
    ("main", 7),
];

/// What may use a module of its own rank.
const WITHIN_RANK: &[(&str, &str)] = &[
    ("entry_name", "limits"),
    // Who is at work, and since when, is part of an error.
    ("error", "env"),
    // What is sealed is laid out by `format`, which knows nothing of keys.
    ("crypto", "format"),
    // The chunker cuts by a table that is a key, and by the profile that the config holds.
    ("chunk", "crypto"),
    ("chunk", "format"),
    // Room for the seal's tag is left behind what is compressed.
    ("compress", "crypto"),
    // A patch is numbers and bytes, laid out as all else is.
    ("compress", "format"),
];

/// Longest source file, in lines, that is no test. The aim is 400; what is above asks to be split.
const FILE_MAX_LINES: usize = 500;
/// Longest function, in lines. The aim is 70.
const FUNCTION_MAX_LINES: usize = 100;

/// The crate's folder: cargo's at run time, so that a built test can be run on another checkout.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn sources() -> Vec<Source> {
    read_all(&root(), "src")
}

fn nothing(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// The top-level modules that `code` names after `crate::`, each with its offset.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        if rest.starts_with('{') {
            let list = &rest[1..item_end(rest).saturating_sub(1)];
            let mut depth = 0;
            let parts = list.split(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            });
            found
                .extend(parts.map(|part| (at, first_word(part.trim()))).filter(|(_, name)| !name.is_empty()));
        } else {
            found.push((at, first_word(rest)));
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn every_module_uses_only_what_lies_below_it() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test) {
        let module = source.module();
        let Some(own) = rank(&module) else {
            found
                .push(format!("{}: module {module} has no rank: give it one in tidy", source.path.display()));
            continue;
        };
        for (at, used) in uses(&source.production) {
            let allowed = used == module
                || used == "error"
                || WITHIN_RANK.contains(&(&module, &used))
                || rank(&used).is_some_and(|rank| rank < own);
            if !allowed {
                found.push(format!("{}: {module} uses {used}", source.at(at)));
            }
        }
    }
    nothing(found, "a module uses only modules of a lower rank");
}

#[test]
fn the_crate_root_holds_no_logic() {
    let sources = sources();
    for name in ["src/lib.rs", "src/main.rs"] {
        let source = sources.iter().find(|s| s.path == Path::new(name)).unwrap();
        let lines = source.production.lines().filter(|line| !line.trim().is_empty()).count();
        let functions = words(&source.production, "fn ").count();
        assert!(functions <= usize::from(name.contains("main")) && lines <= 60, "{name} holds logic");
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test) {
        let lines = source.text.lines().count();
        if lines > FILE_MAX_LINES {
            found.push(format!("{}: {lines} lines", source.path.display()));
        }
        for at in source.find_all("fn ") {
            let body = &source.production[at..at + item_end(&source.production[at..])];
            let lines = body.lines().count();
            if lines > FUNCTION_MAX_LINES {
                found.push(format!("{}: a function of {lines} lines", source.at(at)));
            }
        }
    }
    nothing(found, "files and functions are short");
}

#[test]
fn only_the_shell_prints() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !matches!(s.module().as_str(), "cli" | "main")) {
        for name in ["println!", "print!", "eprintln!", "eprint!", "dbg!"] {
            found.extend(source.find_all(name).map(|at| format!("{}: {name}", source.at(at))));
        }
    }
    nothing(found, "the library never prints");
}

#[test]
fn nothing_panics_on_data_from_outside() {
    let mut found = Vec::new();
    for source in &sources() {
        let names =
            [".unwrap()", ".unwrap_err()", ".expect(", ".expect_err(", "panic!", "todo!", "unimplemented!"];
        // A limit is computed by the compiler, which a panic stops. The store's suite is made of asserts.
        let by_design = ["src/limits.rs", "src/limits/serving.rs", "src/store/conformance.rs"];
        if by_design.iter().any(|path| source.path == Path::new(path)) {
            continue;
        }
        for name in names {
            found.extend(source.find_all(name).map(|at| format!("{}: {name}", source.at(at))));
        }
    }
    nothing(found, "no panic outside tests");
}

#[test]
fn work_that_is_left_is_an_issue_not_a_comment() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let mut found = Vec::new();
    for source in sources().iter().chain(&read_all(&root(), "tests")) {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| words(line, mark).next().is_some()) {
                found.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    nothing(found, "no notes of work left over");
}

#[test]
fn every_lint_exception_says_why() {
    let mut found = Vec::new();
    for source in sources().iter().chain(&read_all(&root(), "tests")) {
        for name in ["#[allow(", "#[expect(", "#![allow(", "#![expect("] {
            for (at, _) in source.code.match_indices(name) {
                let end = source.code[at..].find(")]").map_or(source.code.len(), |end| at + end);
                if !source.code[at..end].contains("reason = \"") {
                    found.push(format!("{}: {name}", source.at(at)));
                }
            }
        }
    }
    nothing(found, "every lint exception has a reason");
}

#[test]
fn every_limit_says_why() {
    let mut found = Vec::new();
    for source in
        sources().iter().filter(|s| s.path.starts_with("src/limits") || s.path == Path::new("src/limits.rs"))
    {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub const ")) {
            let above = lines[..number].iter().rev().find(|line| !line.starts_with("#["));
            if !above.is_some_and(|above| above.starts_with("/// ")) {
                found.push(format!("{}:{}: {line}", source.path.display(), number + 1));
            }
        }
    }
    nothing(found, "every limit has a comment");
}

#[test]
fn every_file_opens_with_what_it_is() {
    let found = sources()
        .iter()
        .filter(|s| !s.is_test && !s.text.starts_with("//! "))
        .map(|s| s.path.display().to_string())
        .collect();
    nothing(found, "every file begins with a `//!` line");
}

#[test]
fn secrets_derive_neither_debug_nor_serde() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| s.module() == "crypto") {
        for at in source.find_all("derive(") {
            let end = at + source.production[at..].find(')').unwrap_or(0);
            let below = &source.production[end + 1..];
            let item =
                below.lines().find(|l| l.contains("struct ") || l.contains("enum ")).unwrap_or_default();
            let secret = ["Key", "Password", "Kek", "Secret"].iter().any(|word| item.contains(word));
            let derives = &source.production[at..end];
            if secret && ["Debug", "Serialize", "Deserialize", "Default"].iter().any(|t| derives.contains(t))
            {
                found.push(format!("{}: {}", source.at(at), item.trim()));
            }
        }
    }
    nothing(found, "secrets cannot be printed by mistake");
}

#[test]
fn the_reader_of_sources_knows_rust_well_enough() {
    let text = r##"let a = "x // \" y"; // panic!
        let b = r#"todo!"#; /* a /* b */ c */ let c = '"'; let d: &'static str = 'x'; '\'' b'\\' "é" end"##;
    let code = without_comments_and_literals(text);
    assert_eq!(code.len(), text.len());
    for gone in ["panic", "todo", "//", "é", "b */"] {
        assert!(!code.contains(gone), "{gone}: {code}");
    }
    for kept in ["let a = \"", "let b = r#\"", "let c = '", "&'static str", "end"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
    let found = uses("use crate::a::b; use crate::{c::{d, e}, f}; crate::g::h();");
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["a", "c", "f", "g"]);
    assert_eq!(item_end("#[cfg(test)]\nmod t { { } }\nfn x() {}"), 26);
}
