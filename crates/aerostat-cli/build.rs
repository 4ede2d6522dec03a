//! Tells the command which commit it was built from, where that is known.

use std::path::Path;
use std::process::Command;

fn main() {
    let root = Path::new("../..");
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    // What lies in another repository, such as that of whoever vendored it, has no commit of its own.
    let is_ours = root.join(".git").exists();
    let commit = if is_ours { git(&["rev-parse", "--short=12", "HEAD"]) } else { None };
    println!("cargo::rustc-env=AEROSTAT_COMMIT={}", commit.unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(path) = is_ours.then(|| git(&["rev-parse", "--git-path", "logs/HEAD"])).flatten() {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
}
