//! The documentation for users: its commands and links are real.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::program;

/// Options of other programs that the pages mention outside of code blocks.
const OF_OTHERS: [&str; 1] = ["--restrict-key"];

fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// Lines with their numbers, and whether they stand in a code block.
    fn lines(&self) -> impl Iterator<Item = (usize, bool, &str)> {
        let mut in_code = false;
        (1..).zip(self.text.lines()).filter_map(move |(number, line)| {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
                return None;
            }
            Some((number, in_code, line))
        })
    }

    fn at(&self, number: usize) -> String {
        format!("{}:{number}", self.path.display())
    }
}

fn pages_in(folder: &str) -> Vec<Page> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

/// The pages that tell users what to type.
fn guide() -> Vec<Page> {
    let mut pages = pages_in("docs/guide");
    pages.push(Page::read(root().join("README.md")));
    pages
}

/// What `--help` says of each command, by the words that name it.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, String>);

impl Helps {
    fn of(&mut self, command: &[String]) -> &str {
        self.0.entry(command.to_vec()).or_insert_with(|| {
            let output = Command::new(program()).args(command).arg("--help").output().unwrap();
            assert!(output.status.success(), "`backstay {} --help` fails", command.join(" "));
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn subcommands(&mut self, command: &[String]) -> BTreeSet<String> {
        let lines = self.of(command).lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
        names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    fn options(&mut self, command: &[String]) -> BTreeSet<String> {
        let is_option = |line: &&str| line.trim_start().starts_with('-');
        let words = self.of(command).lines().filter(is_option).flat_map(str::split_whitespace);
        let trim = |word: &str| word.trim_end_matches([',', '.']).to_owned();
        words.map(trim).filter(|word| word.starts_with('-')).collect()
    }
}

/// The commands of a line of a shell: words, without what other programs are given.
fn commands(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let parts = words.split(|word| ["|", ";", "(", ")", "&"].contains(&word.as_str()));
    let of_backstay = |part: &[String]| {
        let at = part.iter().position(|word| word == "backstay")?;
        // In `mount -t backstay` and in /etc/fstab it is a type.
        if part[..at].iter().any(|word| word == "-t" || word.starts_with('/')) {
            return None;
        }
        Some(part[at + 1..].iter().take_while(|word| *word != "--").cloned().collect())
    };
    parts.filter_map(of_backstay).collect()
}

/// Splits a line as a shell does, as far as these pages need it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if ['\'', '"'].contains(&c) => quote = Some(c),
            None if c == ' ' => words.push(String::new()),
            None if ['|', ';', '(', ')', '&'].contains(&c) => words.extend([c.to_string(), String::new()]),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What is wrong with the command.
fn judge(helps: &mut Helps, words: &[String]) -> Option<String> {
    let mut command = Vec::new();
    let mut takes_value = false;
    for word in words {
        if takes_value {
            takes_value = false;
        } else if word.starts_with('-') {
            let known = helps.options(&command);
            let name = word.split('=').next().unwrap_or_default();
            if word.len() > 1 && !known.contains(name) {
                return Some(format!("`backstay {}` has no option {name}", command.join(" ")));
            }
            takes_value =
                command.is_empty() && ["-r", "--repo"].contains(&name) | name.starts_with("--password");
        } else {
            let names = helps.subcommands(&command);
            if names.is_empty() {
                continue;
            }
            if word == "help" {
                return None;
            }
            if !names.contains(word) {
                return Some(format!("`backstay {}` has no command {word}", command.join(" ")));
            }
            command.push(word.clone());
        }
    }
    None
}

#[test]
fn commands_and_options_exist() {
    let mut helps = Helps::default();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in guide() {
        let mut whole = String::new();
        for (number, in_code, line) in page.lines() {
            let is_command = |span: &&str| span.starts_with("backstay ");
            let spans = || code_spans(line).into_iter().filter(is_command).collect::<Vec<_>>().join(" ; ");
            let line = if in_code { line.to_owned() } else { spans() };
            // Output may quote commands that are cut short.
            if line.contains("[...]") {
                continue;
            }
            whole.push_str(line.trim_end_matches('\\'));
            if line.ends_with('\\') {
                continue;
            }
            for words in commands(&whole) {
                count += 1;
                wrong.extend(judge(&mut helps, &words).map(|what| format!("{}: {what}", page.at(number))));
            }
            whole.clear();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 80, "only {count} commands were found");
}

#[test]
fn options_in_sentences_exist() {
    let mut helps = Helps::default();
    let mut known: BTreeSet<String> = OF_OTHERS.map(str::to_owned).into();
    let mut waiting = vec![Vec::new()];
    while let Some(command) = waiting.pop() {
        known.extend(helps.options(&command));
        for name in helps.subcommands(&command) {
            if name != "help" {
                waiting.push([command.clone(), vec![name]].concat());
            }
        }
    }
    let mut wrong = Vec::new();
    for page in guide() {
        for (number, _, line) in page.lines().filter(|(_, in_code, _)| !in_code) {
            for span in code_spans(line).into_iter().filter(|span| span.len() > 2 && span.starts_with("--")) {
                let option = span.split([' ', '=']).next().unwrap_or_default();
                if !known.contains(option) {
                    wrong.push(format!("{}: no command has an option {option}", page.at(number)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What stands between back quotes in a line of text.
fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut pages = guide();
    pages.extend(pages_in("docs"));
    pages.extend(pages_in("docs/decisions"));
    pages.push(Page::read(root().join("CHANGELOG.md")));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in &pages {
        for (number, _, line) in page.lines().filter(|(_, in_code, _)| !in_code) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                count += 1;
                if !link.contains("://") && !leads_somewhere(&page.path, link) {
                    wrong.push(format!("{}: {link}", page.at(number)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40, "only {count} links were found");
}

fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    if heading.is_empty() {
        return target.exists();
    }
    target.is_file()
        && Page::read(target).lines().any(|(_, in_code, line)| {
            !in_code && line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == heading
        })
}

/// A heading's name in links.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn wrong_commands_would_be_found() {
    let mut helps = Helps::default();
    let mut wrong = |line: &str| commands(line).iter().any(|words| judge(&mut helps, words).is_some());
    for line in
        ["backstay bakcup /x", "x | backstay backup --sdtin", "backstay -r /x key lsit", "backstay ls -z"]
    {
        assert!(wrong(line), "{line}");
    }
    for line in [
        "$ backstay -r /x key list",
        "sudo backstay backup --stdin-from-command --tag a -- pg_dump --nonsense",
        "ls --nonsense",
        "backstay help restore",
        "backstay restore latest:/x --target=/y",
    ] {
        assert!(!wrong(line), "{line}");
    }
    assert_eq!(anchor("What is there, and what is not"), "what-is-there-and-what-is-not");
}
