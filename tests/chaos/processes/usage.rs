//! The resources that a process uses, from `/proc`.

use std::{collections::HashSet, fs};

/// The resources of one process, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in KiB, including mapped files.
    pub rss_kib: u64,
    /// Private resident memory in KiB.
    pub own_kib: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Returns the resources of process `pid`; `None` if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            rss_kib: number("VmRSS")?,
            own_kib: number("RssAnon")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            threads: number("Threads")?,
        })
    }

    /// Returns the sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib + other.rss_kib,
            own_kib: self.own_kib + other.own_kib,
            descriptors: self.descriptors + other.descriptors,
            threads: self.threads + other.threads,
        }
    }
}

/// Counts open IPv4 TCP connections of these processes to `port` of any host.
///
/// Reading `/proc` is fast; asking the other side, such as with `rabbitmqctl`, takes seconds.
pub fn connections_to(port: u16, pids: &[u32]) -> u64 {
    const ESTABLISHED: &str = "01";
    let links = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()).flatten().flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: HashSet<String> = links.map(|link| link.display().to_string()).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ours = table.lines().skip(1).filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(remote), Some(state), Some(inode)) = (fields.get(2), fields.get(3), fields.get(9)) else {
            return false;
        };
        remote.ends_with(&format!(":{port:04X}"))
            && *state == ESTABLISHED
            && sockets.contains(&format!("socket:[{inode}]"))
    });
    ours.count() as u64
}
