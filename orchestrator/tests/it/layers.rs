//! The layers of ARCHITECTURE.md, read off the imports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the top down: a module may use what stands below it, and itself.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["service"],
    &["api"],
    &["axon"],
    &["fleet"],
    &["metagraph_cache"],
    &["chain", "docker", "runner", "ssh", "store", "embedded_host", "init", "import", "grants"],
    &["pow", "sweep", "alerts"],
    &["wallet"],
    &["signing_key"],
    &["transport", "fleet_file"],
    &["config"],
    &["toml_text", "host_spec"],
    &[
        "byte_size",
        "hotkey",
        "ids",
        "host_state",
        "reason",
        "printable",
        "hex",
        "metrics",
        "render",
        "retry",
        "error_chain",
        "log_file",
        "token",
    ],
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules that a text names after `crate::`, tests left out.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let names = code.split("crate::").skip(1);
    names
        .map(|rest| {
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn no_module_uses_a_layer_above_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let level = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let Some(own) = level(&module) else {
            wrong.push(format!("{module} stands in no layer"));
            continue;
        };
        seen.insert(module.clone());
        for other in used(&std::fs::read_to_string(&file).unwrap()) {
            match level(&other) {
                Some(theirs) if theirs > own || other == module => {}
                Some(_) => wrong.push(format!("{} uses {other}", relative.display())),
                None => wrong
                    .push(format!("{} uses {other}, which stands in no layer", relative.display())),
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let listed = LAYERS.iter().flat_map(|layer| layer.iter().map(ToString::to_string)).collect();
    assert_eq!(seen, listed, "every module of the table exists");
}

#[test]
fn only_the_report_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let printing: Vec<_> = files
        .iter()
        .filter(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            text.contains("println!(") || text.contains("clippy::print_stdout")
        })
        .map(|file| file.strip_prefix(&root).unwrap().display().to_string())
        .collect();
    assert_eq!(printing, ["cli/report.rs"]);
}
