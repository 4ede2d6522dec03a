//! Pages for users that name everything there is.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Literals of a file that reads the environment and that look like the name of a variable. What tests set is among them.
fn variables(text: &str) -> Vec<&str> {
    let named = |literal: &&str| {
        let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        literal.len() > 3
            && literal.starts_with(|c: char| c.is_ascii_uppercase())
            && literal.chars().all(letters)
    };
    text.split('"').skip(1).step_by(2).filter(named).collect()
}

/// The page lists what a user may set; a variable that the code began to read and nobody described would be found by reading
/// the source only.
#[test]
fn the_page_of_environment_variables_names_each_that_is_read() {
    let page = fs::read_to_string(root().join("docs/environment.md")).unwrap();
    let mut names = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"]
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    for folder in fs::read_dir(root().join("crates")).unwrap() {
        let source = folder.unwrap().path().join("src");
        for path in sources(&source) {
            let text = fs::read_to_string(&path).unwrap();
            if text.contains("env::var") {
                // "TRUE" is a value.
                names.extend(variables(&text).into_iter().filter(|name| *name != "TRUE").map(str::to_owned));
            }
        }
    }
    assert!(
        names.iter().any(|name| name == "HF_TOKEN"),
        "the source is not where it is looked for: {names:?}"
    );
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/environment.md does not name {missing:?}");
}

/// A message that is explained under words that the command no longer says is found by nobody.
#[test]
fn troubleshooting_quotes_messages_that_exist() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let mut code = String::new();
    for folder in fs::read_dir(root().join("crates")).unwrap() {
        for path in sources(&folder.unwrap().path().join("src")) {
            code += &fs::read_to_string(path).unwrap();
        }
    }
    // Long literals go on in the next line.
    let code = code.replace("\\\n", "\n").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut count = 0;
    for heading in page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')) {
        count += 1;
        // An ellipsis stands for what differs from case to case.
        for part in heading.split('…').map(str::trim).filter(|part| !part.is_empty()) {
            assert!(
                code.contains(part),
                "docs/troubleshooting.md: no message says `{part}` (of `{heading}`)"
            );
        }
    }
    assert!(count > 10, "only {count} messages are explained");
}
