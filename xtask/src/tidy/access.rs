//! What of the outside world a crate may touch: files, network, clock, threads, environment. Tests are free.

use super::finding::Finding;
use super::ratchet::{Ratchet, Site};
use super::source::Source;

/// The list of files that may open files in a crate that as a whole may not.
pub(super) const LIST: &str = "xtask/tidy-files.txt";

/// Something that is reached by these words, and the crates that may reach it.
struct Ban {
    name: &'static str,
    words: &'static [&'static str],
    applies: fn(&str) -> bool,
    /// The one function that may, wherever it stands.
    except: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        name: "files",
        words: &["fs::", "std::fs", "File::open", "File::create", "OpenOptions"],
        applies: |name| !FILE_CRATES.contains(&name),
        except: "",
    },
    Ban {
        name: "network",
        words: &["net::", "TcpStream", "TcpListener", "UdpSocket"],
        applies: |name| !matches!(name, "aerostat-hub" | "aerostat-serve" | "aerostat-cli" | "xtask"),
        except: "",
    },
    Ban {
        name: "environment",
        words: &["env::var", "env::var_os", "env::vars", "env::vars_os", "env::set_var", "env::remove_var"],
        applies: |name| !matches!(name, "aerostat-cli" | "xtask"),
        except: "from_environment",
    },
    Ban {
        name: "clock",
        words: &["time::", "Instant", "SystemTime"],
        applies: |name| matches!(name, "aerostat-plan" | "aerostat-openai"),
        except: "",
    },
    Ban { name: "threads", words: &["thread::"], applies: |name| name == "aerostat-plan", except: "" },
    Ban { name: "streams", words: &["io::"], applies: |name| name == "aerostat-plan", except: "" },
];

const FILE_CRATES: &[&str] = &[
    "aerostat-checkpoint",
    "aerostat-pack",
    "aerostat-stream",
    "aerostat-text",
    "aerostat-hub",
    "aerostat-jobs",
    "aerostat-serve",
    "aerostat-cli",
    "xtask",
];

/// No crate touches what it may not, but for the files listed.
pub(super) fn bans(sources: &[Source], list: &str) -> Vec<Finding> {
    let mut sites = Vec::new();
    for source in sources {
        for ban in BANS.iter().filter(|ban| (ban.applies)(source.crate_name())) {
            sites.extend(uses(source, ban).into_iter().map(|line| Site {
                path: source.path.clone(),
                line,
                item: ban.name.to_owned(),
                value: 1,
            }));
        }
    }
    let ratchet = Ratchet {
        list: LIST,
        free: 0,
        total: |values| values.iter().copied().max().unwrap_or(0),
        describe: |site| (format!("{} touched here", site.item), "move it to a crate that may".to_owned()),
    };
    ratchet.findings(list, sites)
}

/// The lines of shipped code that use what is banned, each once.
fn uses(source: &Source, ban: &Ban) -> Vec<usize> {
    let is_excepted = |offset: usize| {
        source
            .functions
            .iter()
            .any(|function| function.name == ban.except && function.bytes.contains(&offset))
    };
    let offsets = ban.words.iter().flat_map(|word| source.shipped(word));
    let mut lines: Vec<_> =
        offsets.filter(|&offset| !is_excepted(offset)).map(|offset| source.line(offset)).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_touch_only_what_they_may() {
        for (name, text, expected) in [
            ("aerostat-cpu", "use std::fs;\nfs::read(p)", 2),
            ("aerostat-cpu", "#[cfg(test)]\nmod tests { use std::fs::File; }", 0),
            ("aerostat-stream", "use std::fs::File;", 0),
            ("aerostat-model", "OpenOptions::new()", 1),
            ("aerostat", "std::fs::read(p)", 1),
            ("aerostat-arch", "TcpStream::connect(a)", 1),
            ("aerostat-hub", "std::net::lookup()", 0),
            ("aerostat-plan", "let t = Instant::now();\nstd::io::stdout();\nstd::thread::spawn(f);", 3),
            ("aerostat-cpu", "std::thread::spawn(f)", 0),
            ("aerostat-plan", "/// Not `std::fs`.\nfn f() {}", 0),
            ("aerostat-stream", "std::env::var(\"A\")", 1),
            ("aerostat-stream", "env!(\"CARGO\")", 0),
            (
                "aerostat-hub",
                "fn from_environment() { std::env::var_os(a) }\nfn b() { std::env::var_os(a) }",
                1,
            ),
            ("aerostat-cli", "std::env::var(a)", 0),
        ] {
            let source = Source::new(&format!("crates/{name}/src/a.rs"), text);
            assert_eq!(bans(&[source], "").len(), expected, "{name}: {text}");
        }
    }

    #[test]
    fn a_listed_file_may() {
        let source = || Source::new("crates/aerostat/src/open.rs", "fs::read(p);\nfs::read(p)");
        assert!(bans(&[source()], "crates/aerostat/src/open.rs files 1 opens").is_empty());
        assert_eq!(bans(&[source()], "crates/aerostat/src/other.rs files 1 opens").len(), 3);
    }
}
