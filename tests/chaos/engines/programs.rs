//! Finds the engines' programs, free ports, and the user to run as. It starts nothing.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

/// Finds a program in `places`, then in `PATH`, then in Debian's server directories.
pub fn find(program: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    places.iter().cloned().chain(std::env::split_paths(&path)).chain(servers).map(|place| place.join(program)).find(
        |file| {
            use std::os::unix::fs::PermissionsExt as _;
            file.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
        },
    )
}

/// Debian's directories of PostgreSQL programs, newest version first.
pub fn postgres_places() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    versions.into_iter().map(|version| version.join("bin")).collect()
}

/// RabbitMQ's own program directories: Debian's wrappers in `PATH` insist on one user.
pub fn rabbitmq_places() -> Vec<PathBuf> {
    vec![PathBuf::from("/usr/lib/rabbitmq/bin")]
}

/// Returns the user and group for the engines when this program runs as root, since PostgreSQL refuses to run as root:
/// `postgres`, or `nobody`. `None` if this program does not run as root.
pub fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).or(Some((65_534, 65_534)))
}

/// Creates a directory owned by this user.
pub fn directory_of(user: Option<(u32, u32)>, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match user {
        Some((user, group)) => std::os::unix::fs::chown(directory, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Returns a free port of 127.0.0.1 that was not returned before.
///
/// Ephemeral ports are excluded: while an engine is down, no outgoing connection may take its port.
///
/// # Panics
/// If no port is free.
pub fn spare_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock();
    let port = std::iter::repeat_with(|| fastrand::u16(12_000..32_000))
        .take(1_000)
        .find(|port| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 1,000 ports is free");
    given.insert(port);
    port
}
