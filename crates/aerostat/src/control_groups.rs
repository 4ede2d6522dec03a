//! Memory that the control groups of this process leave it: Linux' limits of services, containers and users.
//!
//! A process is in a group of each hierarchy, and every ancestor of a group has a limit of its own. Version 2 has one
//! hierarchy, version 1 one for memory alone. Where they are mounted, and which part of a hierarchy is seen there (a
//! container sees its own), is in `mountinfo`; see cgroups(7), proc_pid_mountinfo(5) and the kernel's `cgroup-v2.rst`.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that every group of this process has left, the least of them; `None` without a limit. Page cache does not count
/// as used, since it gives way. `root` is where the system's files are: `/`.
pub(crate) fn available_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let left = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let version = match controllers {
            "" => &V2,
            all if all.split(',').any(|one| one == "memory") => &V1,
            _ => return None,
        };
        version.left_in(root, &mounts, path)
    });
    left.min()
}

/// The files of one version of control groups.
struct Version {
    filesystem: &'static str,
    /// Among the mount's own options.
    option: Option<&'static str>,
    limits: &'static [&'static str],
    used: &'static str,
    /// Lines of `memory.stat` with page cache, in bytes, of the group and those below it.
    cache: [&'static str; 2],
}

const V1: Version = Version {
    filesystem: "cgroup",
    option: Some("memory"),
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    cache: ["total_inactive_file", "total_active_file"],
};

const V2: Version = Version {
    filesystem: "cgroup2",
    option: None,
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    cache: ["inactive_file", "active_file"],
};

impl Version {
    /// What a group and all above it that are seen here have left.
    fn left_in(&self, root: &Path, mounts: &str, group: &str) -> Option<u64> {
        let (seen, at) = mounts.lines().find_map(|line| self.mount(line))?;
        let mount = root.join(at.trim_start_matches('/'));
        // A group outside of what is seen here shows no more than the mount.
        let below = Path::new(group).strip_prefix(&seen).unwrap_or(Path::new(""));
        let is_below = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let below = if is_below { below } else { Path::new("") };
        below.ancestors().filter_map(|above| self.left(&mount.join(above))).min()
    }

    /// Which part of the hierarchy a line of `mountinfo` mounts, and where.
    fn mount(&self, line: &str) -> Option<(PathBuf, String)> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_ours = kind.next() == Some(self.filesystem);
        let options = kind.nth(1);
        let has = |one| options.is_some_and(|all| all.split(',').any(|option| option == one));
        let has_option = self.option.is_none_or(has);
        let mut place = place.split(' ').skip(3);
        let (seen, at) = (place.next()?, place.next()?);
        (is_ours && has_option).then(|| (unescaped(seen).into(), unescaped(at)))
    }

    /// What one group has left.
    fn left(&self, folder: &Path) -> Option<u64> {
        // A limit that is none is a word in version 2.
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = self.limits.iter().filter_map(|name| number(name)).min()?;
        let stat = fs::read_to_string(folder.join("memory.stat")).ok();
        let cache = stat.iter().flat_map(|text| text.lines()).filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            self.cache.contains(&name).then(|| bytes.trim().parse::<u64>().ok())?
        });
        let used = number(self.used)?.saturating_sub(cache.sum());
        Some(limit.saturating_sub(used))
    }
}

/// Spaces and the like are written as three octal digits.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files, below a folder of its own.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_ancestor_counts_and_page_cache_gives_way() {
        let root = system(&[
            ("proc/self/cgroup", "0::/system.slice/run-7.scope\n"),
            ("proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1000000\n"),
            ("sys/fs/cgroup/system.slice/memory.high", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "900000\n"),
            (
                "sys/fs/cgroup/system.slice/memory.stat",
                "anon 5\nfile 800000\ninactive_file 300000\nactive_file 400000\n",
            ),
            ("sys/fs/cgroup/system.slice/run-7.scope/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/run-7.scope/memory.current", "700000\n"),
        ]);
        assert_eq!(available_bytes(root.path()), Some(800_000));
        // Above the high mark a group is slowed down as if it had no more.
        fs::write(root.path().join("sys/fs/cgroup/system.slice/run-7.scope/memory.high"), "750000").unwrap();
        assert_eq!(available_bytes(root.path()), Some(50_000));
    }

    #[test]
    fn version_1_is_found_where_it_is_mounted() {
        let root = system(&[
            ("proc/self/cgroup", "9:cpu,cpuacct:/\n4:memory:/docker/abc/job\n1:name=systemd:/\n0::/\n"),
            (
                "proc/self/mountinfo",
                "31 24 0:27 /docker/abc /sys/fs/cg\\040roup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
                 32 24 0:28 /docker/abc /sys/fs/cg\\040roup/memory ro - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cg roup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cg roup/memory/memory.usage_in_bytes", "1000\n"),
            ("sys/fs/cg roup/memory/job/memory.limit_in_bytes", "5000\n"),
            ("sys/fs/cg roup/memory/job/memory.usage_in_bytes", "4000\n"),
            (
                "sys/fs/cg roup/memory/job/memory.stat",
                "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 700\n",
            ),
        ]);
        assert_eq!(available_bytes(root.path()), Some(2200));
    }

    #[test]
    fn without_limits_or_files_there_is_none() {
        let root = system(&[]);
        assert_eq!(available_bytes(root.path()), None);
        let root = system(&[
            ("proc/self/cgroup", "0::/../elsewhere\nnonsense\n"),
            (
                "proc/self/mountinfo",
                "1 2 3\n - cgroup2\n30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(available_bytes(root.path()), None);
    }
}
