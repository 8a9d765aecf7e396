//! What `/proc` knows of processes: whose child one is, when it began, whether it carries our mark. It only reads.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The variable that every process of a run has in its environment; its value is a directory of the run.
pub const MARK: &str = "CHAOS_RUN";

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug)]
struct Stat {
    state: char,
    parent: u32,
    group: u32,
    started: u64,
}

/// When a process began, in the kernel's ticks: with its number this tells it from all others. `None` if it is gone.
pub fn started_at(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.started)
}

/// Whether a process is there and still runs; one that has ended and was not waited for does not.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// The process, all that descend from it and all of its group.
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

/// Whether a process has ended and nobody has waited for it.
pub fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == 'Z')
}

/// Living processes whose mark is `directory` or lies below it.
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
    // The name stands in parentheses and may contain anything, also parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        started: fields.nth(16)?.parse().ok()?,
    })
}
