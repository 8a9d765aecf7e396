//! What a decoder is locked in by: bounds on memory and processor time, no files, no network, no system call that it does
//! not need. What a system does not have is left out, and said.

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
    /// Whether no file can be opened.
    pub files: bool,
    /// Whether nothing can be sent anywhere.
    pub network: bool,
    /// Whether other system calls than those a decoder needs are refused (seccomp).
    pub system_calls: bool,
    /// Whether the kernel keeps files and network away besides (Landlock).
    pub landlock: bool,
}

impl Walls {
    /// The names of the walls that stand, and of those that do not.
    pub fn names(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let all = [
            ("process", self.process),
            ("memory", self.memory),
            ("processor time", self.processor_time),
            ("files", self.files),
            ("network", self.network),
            ("seccomp", self.system_calls),
            ("landlock", self.landlock),
        ];
        let (standing, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, stands)| *stands);
        let names = |walls: Vec<(&'static str, bool)>| walls.into_iter().map(|(name, _)| name).collect();
        (names(standing), names(missing))
    }
}

#[cfg(unix)]
pub(super) use raised::{Bounds, Outer};

#[cfg(unix)]
mod raised {
    use std::{fs, io, net::UdpSocket, time::Duration};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::{Walls, kernel};

    /// What stands around a decoder from its start.
    pub(in super::super) struct Outer {
        /// Bytes of address space that the process had before; afterwards nobody can look it up.
        own_memory: Option<u64>,
        landlock: bool,
        filter: Option<kernel::Filter>,
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
            Self { own_memory: own_memory(), landlock: kernel::raise_landlock(), filter: kernel::filter() }
        }

        /// Raises the rest around the copy of the process that works on one picture. Answers which walls stand.
        pub(in super::super) fn close(&self, bounds: &Bounds) -> Walls {
            let seconds = bounds.time.as_secs().max(1);
            let processor_time = bound_softly(Resource::Cpu, seconds, seconds + 1);
            let memory = self.own_memory.is_some_and(|own| bound(Resource::As, own.saturating_add(bounds.memory)));
            let system_calls = self.filter.as_ref().is_some_and(kernel::apply);
            Walls { process: true, memory, processor_time, system_calls, landlock: self.landlock, ..Walls::default() }
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

    pub(super) struct Filter;

    pub(super) fn raise_landlock() -> bool {
        false
    }

    pub(super) fn filter() -> Option<Filter> {
        None
    }

    pub(super) fn apply(_: &Filter) -> bool {
        false
    }
}
