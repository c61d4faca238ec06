//! What the machine lets this process have: the memory of the machine or of its control group, whichever is less.

use std::fs::read_to_string;
use std::path::Path;

use crate::memory::{LIMIT_LEAST, Memory, shown_bytes};
use crate::settings::Settings;

/// The memory that the process may hold: as set, or a part of what the machine has.
pub(super) fn memory(settings: &Settings) -> Memory {
    limited(settings.memory_limit.resolve(memory_bytes(Path::new("/"))))
}

/// The same for a process beside the one of the lanes: as set, or what that leaves.
pub(super) fn memory_beside(settings: &Settings) -> Memory {
    let left = memory_bytes(Path::new("/")).map(|bytes| (bytes / 4).max(LIMIT_LEAST));
    limited(settings.memory_limit.0.or(left))
}

fn limited(limit: Option<u64>) -> Memory {
    match limit {
        Some(bytes) => tracing::info!("at most {} of memory are used: falaj.memory_limit", shown_bytes(bytes)),
        None => tracing::warn!("how much memory there is cannot be found out: SET falaj.memory_limit = '1GiB'"),
    }
    Memory::new(limit)
}

/// The least of `MemTotal` and the limits of the control group and of all that it is in. `None`: neither can be read.
fn memory_bytes(root: &Path) -> Option<u64> {
    let machine = read_to_string(root.join("proc/meminfo")).ok().as_deref().and_then(total);
    machine.into_iter().chain(group_limits(root)).min()
}

/// `MemTotal:       24683004 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn group_limits(root: &Path) -> Vec<u64> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // `0::/path` in version 2, `5:memory:/path` in version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the path may be the one outside, and the mount its end: so the mount itself is looked at, too.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = read_to_string(root.join(mount).join(group).join(file));
            // `max`, or a number beyond any machine's: no limit.
            limits.extend(limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok()).filter(|limit| *limit < 1 << 60));
        }
    }
    limits
}

/// How far a thread that gives way stands behind: it gets a tenth of what the others do, where there is not enough for all.
#[cfg(target_os = "linux")]
const NICE: libc::c_int = 10;

/// Lets the others of the machine's threads go before the calling one.
pub fn give_way() {
    // On Linux it is of the thread that calls; elsewhere it would be of the whole process.
    #[cfg(target_os = "linux")]
    // SAFETY: it only sets a number of the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], bytes: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(memory_bytes(root.path()), bytes, "{files:?}");
    }

    #[test]
    fn the_least_of_machine_and_control_groups_counts() {
        let meminfo = ("proc/meminfo", "MemTotal:        4194304 kB\nMemFree:  1 kB\n");
        check(&[], None);
        check(&[meminfo], Some(4 << 30));
        check(&[meminfo, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1073741824\n")], Some(1 << 30));
        let nested = ("proc/self/cgroup", "0::/a/b\n");
        check(&[meminfo, nested, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some(4 << 30));
        check(
            &[meminfo, nested, ("sys/fs/cgroup/a/memory.max", "5000\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")],
            Some(5000),
        );
        let first = ("proc/self/cgroup", "9:cpu,cpuacct:/x\n5:memory:/docker/0\n");
        check(&[meminfo, first, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n")], Some(2 << 30));
        check(
            &[meminfo, first, ("sys/fs/cgroup/memory/docker/0/memory.limit_in_bytes", "9223372036854771712\n")],
            Some(4 << 30),
        );
    }

    #[test]
    fn this_machine_has_some() {
        assert!(memory_bytes(Path::new("/")).is_none_or(|bytes| bytes > 64 << 20));
    }
}
