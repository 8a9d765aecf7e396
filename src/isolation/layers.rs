//! Sandbox layers of a decoder process.
//!
//! They limit memory and CPU time, drop privileges, and block files, the network and every system call that a decoder
//! does not need. Layers that the system lacks are skipped and reported.

use serde::{Deserialize, Serialize};

/// Reports which sandbox layers of a decoder are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLayers {
    /// Whether each image is decoded in its own process.
    pub process: bool,
    /// Whether memory is limited.
    pub memory: bool,
    /// Whether CPU time is limited.
    pub processor_time: bool,
    /// Whether the decoder has no capabilities, cannot gain any, and cannot be traced.
    pub privileges: bool,
    /// Whether opening files is blocked.
    pub files: bool,
    /// Whether the network is blocked.
    pub network: bool,
    /// Whether seccomp blocks every system call that a decoder does not need.
    pub system_calls: bool,
    /// Whether Landlock blocks files and the network too.
    pub landlock: bool,
}

/// Describes one sandbox layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxLayer {
    /// Short name.
    pub name: &'static str,
    /// Consequence if the layer is missing.
    pub without: &'static str,
    /// System feature that the layer requires.
    pub takes: &'static str,
}

impl SandboxLayers {
    /// Returns every layer and whether it is active.
    const fn all(&self) -> [(SandboxLayer, bool); 8] {
        const fn layer(name: &'static str, without: &'static str, takes: &'static str) -> SandboxLayer {
            SandboxLayer { name, without, takes }
        }
        [
            (layer("process", "images are decoded in pm's own process", "a Unix system"), self.process),
            (layer("memory", "one image can use all memory", "RLIMIT_AS and a mounted /proc"), self.memory),
            (layer("processor time", "one image can use a CPU core without limit", "RLIMIT_CPU"), self.processor_time),
            (
                layer("privileges", "a decoder keeps pm's capabilities", "no_new_privs and capset of Linux"),
                self.privileges,
            ),
            (layer("files", "a compromised decoder can open files", "Landlock or seccomp of Linux"), self.files),
            (
                layer("network", "a compromised decoder can reach the network", "Landlock or seccomp of Linux"),
                self.network,
            ),
            (
                layer(
                    "seccomp",
                    "a compromised decoder can make any system call",
                    "a Linux kernel with CONFIG_SECCOMP_FILTER on x86_64, aarch64 or riscv64",
                ),
                self.system_calls,
            ),
            (
                layer(
                    "landlock",
                    "only seccomp blocks files and the network",
                    "Linux 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in /sys/kernel/security/lsm",
                ),
                self.landlock,
            ),
        ]
    }

    /// Returns the inactive layers.
    pub fn missing(&self) -> Vec<SandboxLayer> {
        self.all().into_iter().filter(|(_, stands)| !stands).map(|(layer, _)| layer).collect()
    }

    /// Returns the names of the active layers.
    pub fn standing(&self) -> Vec<&'static str> {
        self.all().into_iter().filter(|(_, stands)| *stands).map(|(layer, _)| layer.name).collect()
    }

    /// Returns whether every layer is active.
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

    use super::{SandboxLayers, kernel};

    /// Layers that a decoder applies once, at its start.
    pub(in super::super) struct Outer {
        /// Address space of the process at its start, in bytes. It cannot be read after the layers are applied.
        own_memory: Option<u64>,
        privileges: bool,
        landlock: bool,
    }

    /// Resource limits for one image.
    pub(in super::super) struct Bounds {
        /// Additional memory, in bytes.
        pub memory: u64,
        /// CPU time.
        pub time: Duration,
    }

    impl Outer {
        /// Applies the layers that do not depend on the image. Call it in a single-threaded process.
        pub(in super::super) fn raise() -> Self {
            // Under memory pressure the kernel kills decoders first. Not every system has this file.
            let _ = fs::write("/proc/self/oom_score_adj", "1000");
            bound(Resource::Core, 0);
            bound(Resource::Fsize, 0);
            // `drop_privileges` makes this process's /proc entries unreadable, so read them first.
            let own_memory = own_memory();
            Self { own_memory, privileges: kernel::drop_privileges(), landlock: kernel::raise_landlock() }
        }

        /// Applies the remaining layers in the child that works on one image; returns the active layers.
        pub(in super::super) fn close(&self, bounds: &Bounds) -> SandboxLayers {
            let seconds = bounds.time.as_secs().max(1);
            let processor_time = bound_softly(Resource::Cpu, seconds, seconds + 1);
            let memory = self.own_memory.is_some_and(|own| bound(Resource::As, own.saturating_add(bounds.memory)));
            let Self { privileges, landlock, .. } = *self;
            let system_calls = kernel::filter_calls();
            SandboxLayers {
                process: true,
                memory,
                processor_time,
                privileges,
                system_calls,
                landlock,
                ..SandboxLayers::default()
            }
        }
    }

    impl SandboxLayers {
        /// Adds the layers that are verified by attempting forbidden operations.
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
        // A process may lower its limits but never raise them.
        let present = getrlimit(resource).maximum;
        let hard = present.map_or(hard, |present| present.min(hard));
        setrlimit(resource, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) }).is_ok()
    }

    /// Returns the address space of this process, in bytes.
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
    //! Systems without these layers.

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
    fn missing_lists_each_inactive_layer() {
        let all = SandboxLayers {
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
        let without = SandboxLayers { landlock: false, ..all };
        assert!(!without.are_complete() && !without.standing().contains(&"landlock"));
        let missing = without.missing();
        assert_eq!(missing.len(), 1);
        assert!(missing[0].name == "landlock" && missing[0].takes.contains("5.13"));
        assert_eq!(SandboxLayers::default().missing().len(), 8);
    }
}
