//! Linux sandbox layers: dropped privileges, Landlock and seccomp.

use std::{collections::BTreeMap, fs};

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::{
    process::{DumpableBehavior, getpid, set_dumpable_behavior},
    thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Newest Landlock ABI in use; older kernels apply the subset that they know.
const NEWEST: ABI = ABI::V6;

/// System calls for decoding, answering and exiting: memory, time, random numbers, the socket to the worker.
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
    libc::SYS_write,
];

/// Calls that map memory, and the index of their protection argument.
const MAPPING: &[(libc::c_long, u8)] = &[(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2)];

/// Drops all capabilities for good and forbids tracing by other processes of the same user.
pub(super) fn drop_privileges() -> bool {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    // Without permitted capabilities there are no ambient ones, so failure on kernels before 4.3 is harmless.
    let _ = clear_ambient_capability_set();
    set_no_new_privs(true).is_ok()
        && set_capabilities(None, sets).is_ok()
        && set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok()
}

/// Blocks files, the network and signals with Landlock. Returns whether any restriction applies: old kernels restrict
/// only files.
pub(super) fn raise_landlock() -> bool {
    let raised = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self());
    raised.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// Installs the seccomp filter permanently. Returns whether it is active.
pub(super) fn filter_calls() -> bool {
    filter().is_some_and(|filter| seccompiler::apply_filter(&filter).is_ok())
}

/// Builds the filter for this process; `None` on an unknown architecture.
fn filter() -> Option<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEEDED.iter().map(|call| (*call, Vec::new())).collect();
    let allow_if = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).ok()?;
        Some(vec![SeccompRule::new(vec![condition]).ok()?])
    };
    for (call, argument) in MAPPING {
        let not_executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        rules.insert(*call, allow_if(*argument, not_executable, 0)?);
    }
    // `abort` sends a signal to its own process; no other target is allowed.
    let own = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    rules.insert(libc::SYS_tgkill, allow_if(0, SeccompCmpOp::Eq, own)?);
    let processor = std::env::consts::ARCH.try_into().ok()?;
    // Return an error instead of killing: a library that tries an optional call continues without it.
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, processor).ok()?;
    BpfProgram::try_from(filter).ok()
}

/// Returns whether the filter allows a system call, at least with some arguments.
#[cfg(any(debug_assertions, test))]
pub(in super::super) fn is_needed(call: libc::c_long) -> bool {
    NEEDED.contains(&call) || MAPPING.iter().any(|(mapping, _)| *mapping == call) || call == libc::SYS_tgkill
}

/// Returns the address space of this process, in bytes.
pub(super) fn own_memory() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_blocks_files_network_processes_and_signals() {
        let forbidden = [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_prctl,
            libc::SYS_prlimit64,
            libc::SYS_ioctl,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
            libc::SYS_userfaultfd,
            libc::SYS_unshare,
            libc::SYS_setns,
        ];
        assert_eq!(forbidden.iter().find(|call| is_needed(**call)), None);
    }
}
