//! The walls that Linux has: Landlock against files, network and other processes, a filter of system calls (seccomp).

use std::{collections::BTreeMap, fs};

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The newest rights that are known here; an older kernel takes those of them that it knows.
const NEWEST: ABI = ABI::V6;

/// What decoding, answering and dying take: memory, time, random numbers for hash tables, the pipe to the worker.
const NEEDED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
];

/// Calls that map memory, and which of their arguments says whether it may be run as code.
const MAPPING: &[(libc::c_long, u8)] = &[(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2)];

/// The filter, ready for the kernel.
pub(super) struct Filter(BpfProgram);

/// From now on this process and its children can open no file, reach no network, and signal nobody outside. Answers
/// whether any of it holds: the oldest kernels that have it keep files away only.
pub(super) fn raise_landlock() -> bool {
    let raised = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self());
    raised.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// The filter for this processor, if it is one that is known.
pub(super) fn filter() -> Option<Filter> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEEDED.iter().map(|call| (*call, Vec::new())).collect();
    for (call, argument) in MAPPING {
        let executable = libc::PROT_EXEC as u64;
        let not_executable = SeccompCmpOp::MaskedEq(executable);
        let condition = SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, not_executable, 0).ok()?;
        rules.insert(*call, vec![SeccompRule::new(vec![condition]).ok()?]);
    }
    let processor = std::env::consts::ARCH.try_into().ok()?;
    // Refused and not killed: a library that asks for more than it needs gets along without.
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, processor).ok()?;
    BpfProgram::try_from(filter).ok().map(Filter)
}

/// Puts the filter up for good.
pub(super) fn apply(filter: &Filter) -> bool {
    seccompiler::apply_filter(&filter.0).is_ok()
}

/// Bytes of address space that this process has.
pub(super) fn own_memory() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
