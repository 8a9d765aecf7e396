//! What a decoder is locked in by: bounds on memory and processor time, no privileges, no files, no network, no system call
//! that it does not need. What a system does not have is left out, and said.

use serde::{Deserialize, Serialize};

/// Which walls stand around a decoder; as tried out by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Whether each picture has a process of its own.
    pub process: bool,
    /// Whether memory is bounded.
    pub memory: bool,
    /// Whether processor time is bounded.
    pub processor_time: bool,
    /// Whether the decoder has no capabilities, gains none, and cannot be traced.
    pub privileges: bool,
    /// Whether no file can be opened.
    pub files: bool,
    /// Whether nothing can be sent anywhere.
    pub network: bool,
    /// Whether other system calls than those a decoder needs are refused (seccomp).
    pub system_calls: bool,
    /// Whether the kernel keeps files and network away besides (Landlock).
    pub landlock: bool,
}

/// One wall: its name, what its absence means, and what of a system it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    /// A word or two.
    pub name: &'static str,
    /// What follows if it is missing.
    pub without: &'static str,
    /// What of a system it takes.
    pub takes: &'static str,
}

impl Walls {
    /// Every wall, and whether it stands.
    const fn all(&self) -> [(Wall, bool); 8] {
        const fn wall(name: &'static str, without: &'static str, takes: &'static str) -> Wall {
            Wall { name, without, takes }
        }
        [
            (wall("process", "images are decoded in pm's own process", "a Unix system"), self.process),
            (wall("memory", "one image can take all memory", "RLIMIT_AS and a mounted /proc"), self.memory),
            (wall("processor time", "one image can take a core without end", "RLIMIT_CPU"), self.processor_time),
            (
                wall("privileges", "a decoder keeps the capabilities of pm", "no_new_privs and capset of Linux"),
                self.privileges,
            ),
            (wall("files", "a decoder that is taken over can open files", "Landlock or seccomp of Linux"), self.files),
            (
                wall("network", "a decoder that is taken over can reach the network", "Landlock or seccomp of Linux"),
                self.network,
            ),
            (
                wall(
                    "seccomp",
                    "a decoder that is taken over can make every system call",
                    "a Linux kernel with CONFIG_SECCOMP_FILTER on x86_64, aarch64 or riscv64",
                ),
                self.system_calls,
            ),
            (
                wall(
                    "landlock",
                    "nothing but seccomp keeps files and network away",
                    "Linux 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in /sys/kernel/security/lsm",
                ),
                self.landlock,
            ),
        ]
    }

    /// The walls that do not stand.
    pub fn missing(&self) -> Vec<Wall> {
        self.all().into_iter().filter(|(_, stands)| !stands).map(|(wall, _)| wall).collect()
    }

    /// The names of the walls that stand.
    pub fn standing(&self) -> Vec<&'static str> {
        self.all().into_iter().filter(|(_, stands)| *stands).map(|(wall, _)| wall.name).collect()
    }

    /// Whether every wall stands.
    pub fn are_complete(&self) -> bool {
        self.all().iter().all(|(_, stands)| *stands)
    }
}

#[cfg(unix)]
pub(super) use raised::{Bounds, Outer};

#[cfg(all(target_os = "linux", debug_assertions))]
pub(super) use kernel::is_needed;

#[cfg(unix)]
mod raised {
    use std::{fs, io, net::UdpSocket, time::Duration};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::{Walls, kernel};

    /// What stands around a decoder from its start.
    pub(in super::super) struct Outer {
        /// Bytes of address space that the process had before; afterwards nobody can look it up.
        own_memory: Option<u64>,
        privileges: bool,
        landlock: bool,
    }

    /// What one picture may take.
    pub(in super::super) struct Bounds {
        /// Memory beside what the decoder has already, in bytes.
        pub memory: u64,
        /// Processor time.
        pub time: Duration,
    }

    impl Outer {
        /// Raises what needs no knowledge of the picture; prepares the rest. For a process with one thread.
        pub(in super::super) fn raise() -> Self {
            // Where memory runs out, the system ends a decoder first. Not all systems have this.
            let _ = fs::write("/proc/self/oom_score_adj", "1000");
            bound(Resource::Core, 0);
            bound(Resource::Fsize, 0);
            // After this nobody reads anything of this process in /proc any more.
            let own_memory = own_memory();
            Self { own_memory, privileges: kernel::drop_privileges(), landlock: kernel::raise_landlock() }
        }

        /// Raises the rest around the copy of the process that works on one picture. Answers which walls stand.
        pub(in super::super) fn close(&self, bounds: &Bounds) -> Walls {
            let seconds = bounds.time.as_secs().max(1);
            let processor_time = bound_softly(Resource::Cpu, seconds, seconds + 1);
            let memory = self.own_memory.is_some_and(|own| bound(Resource::As, own.saturating_add(bounds.memory)));
            let Self { privileges, landlock, .. } = *self;
            let system_calls = kernel::filter_calls();
            Walls { process: true, memory, processor_time, privileges, system_calls, landlock, ..Walls::default() }
        }
    }

    impl Walls {
        /// Adds what is found by trying to get out.
        pub(in super::super) fn tried_out(mut self) -> Self {
            let refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            self.files = fs::File::open("/").err().is_some_and(refused);
            let refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            self.network = UdpSocket::bind(("127.0.0.1", 0)).err().is_some_and(refused);
            self
        }
    }

    fn bound(resource: Resource, limit: u64) -> bool {
        bound_softly(resource, limit, limit)
    }

    fn bound_softly(resource: Resource, soft: u64, hard: u64) -> bool {
        // A process may lower its bounds but never raise them.
        let present = getrlimit(resource).maximum;
        let hard = present.map_or(hard, |present| present.min(hard));
        setrlimit(resource, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) }).is_ok()
    }

    /// Bytes of address space that this process has.
    fn own_memory() -> Option<u64> {
        #[cfg(target_os = "linux")]
        {
            kernel::own_memory()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }
}

#[cfg(target_os = "linux")]
mod kernel;
#[cfg(all(unix, not(target_os = "linux")))]
mod kernel {
    //! Nothing of the kind.

    pub(super) fn drop_privileges() -> bool {
        false
    }

    pub(super) fn raise_landlock() -> bool {
        false
    }

    pub(super) fn filter_calls() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_that_is_missing_is_named() {
        let all = Walls {
            process: true,
            memory: true,
            processor_time: true,
            privileges: true,
            files: true,
            network: true,
            system_calls: true,
            landlock: true,
        };
        assert!(all.are_complete() && all.missing().is_empty());
        let without = Walls { landlock: false, ..all };
        assert!(!without.are_complete() && !without.standing().contains(&"landlock"));
        let missing = without.missing();
        assert_eq!(missing.len(), 1);
        assert!(missing[0].name == "landlock" && missing[0].takes.contains("5.13"));
        assert_eq!(Walls::default().missing().len(), 8);
    }
}
