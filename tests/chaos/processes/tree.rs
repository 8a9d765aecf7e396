//! Reads processes from `/proc`: parents, start times, and our mark. It changes nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Environment variable in every process of a run; its value is a directory of the run.
pub const MARK: &str = "CHAOS_RUN";

/// Fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
struct Stat {
    state: char,
    parent: u32,
    group: u32,
    started: u64,
}

/// Returns a process's start time in kernel ticks, which with its pid identifies it. `None` if it is gone.
pub fn started_at(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.started)
}

/// Returns whether a process is running; a zombie is not.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Returns the process, its descendants and its process group.
pub fn family(pid: u32) -> Vec<u32> {
    let all: BTreeMap<u32, Stat> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut family = vec![pid];
    let mut looked_at = 0;
    while looked_at < family.len() {
        let parent = family[looked_at];
        looked_at += 1;
        for (child, stat) in &all {
            if (stat.parent == parent || stat.group == pid) && !family.contains(child) {
                family.push(*child);
            }
        }
    }
    family
}

/// Returns whether a process is a zombie.
pub fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == 'Z')
}

/// Returns living processes whose mark is `directory` or a path below it.
pub fn marked(directory: &Path) -> Vec<u32> {
    pids().filter(|pid| is_alive(*pid) && mark(*pid).is_some_and(|mark| mark.starts_with(directory))).collect()
}

fn mark(pid: u32) -> Option<PathBuf> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment);
    let prefix = format!("{MARK}=");
    text.split('\0').find_map(|variable| variable.strip_prefix(&prefix)).map(PathBuf::from)
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself contain parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        started: fields.nth(16)?.parse().ok()?,
    })
}
