//! The real Python SDKs, in the virtual environments of scripts/setup-python.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

/// The interpreter of an environment.
fn interpreter(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join("target/python").join(name).join("bin/python");
    assert!(
        python.exists(),
        "this test runs {}: run `scripts/setup-python` first, as scripts/test does",
        python.display()
    );
    python
}

/// Runs a module of an environment as a program, in this folder; returns whether it went well, and what
/// it wrote.
pub async fn module(name: &str, module: &str, arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = tokio::process::Command::new(interpreter(name))
        .args(["-W", "ignore", "-m", module])
        .args(arguments)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/bin:/bin")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1")
        .env("NO_COLOR", "1")
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), format!("{out}\n{err}"))
}

/// Runs a program of tests/python in an environment, with a home of its own; the last line that it
/// writes is its result as JSON.
pub async fn run(name: &str, program: &str, arguments: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(program);
    let output = tokio::process::Command::new(interpreter(name))
        .arg("-W")
        .arg("ignore")
        .arg(file)
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", "/usr/bin:/bin")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_COLOR", "1")
        .current_dir(home.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = out.lines().last().unwrap_or_default();
    let json = last.split_once("MADE ").map_or(last, |(_, json)| json);
    assert!(output.status.success(), "{program} in {name}\n{out}\n{err}");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}\n{out}\n{err}"))
}
