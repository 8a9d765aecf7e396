//! Where the engines' programs are, which ports are spare, and as whom they run. It starts nothing.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Finds a program: in `places` first, then in `PATH`, then where Debian keeps servers.
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

/// Where Debian keeps the programs of each version of PostgreSQL, the newest first.
pub fn postgres_places() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    versions.into_iter().map(|version| version.join("bin")).collect()
}

/// Where RabbitMQ's own programs are: those that Debian puts into `PATH` run as one certain user only.
pub fn rabbitmq_places() -> Vec<PathBuf> {
    vec![PathBuf::from("/usr/lib/rabbitmq/bin")]
}

/// The user and group that engines run as when this program is root, since PostgreSQL refuses to be root: `postgres`, or
/// `nobody`. `None` if this program is somebody else already.
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

/// Makes a directory that belongs to this user.
///
/// # Errors
/// If it cannot be made or given away.
pub fn directory_of(user: Option<(u32, u32)>, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match user {
        Some((user, group)) => std::os::unix::fs::chown(directory, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// A port of 127.0.0.1 that nobody listens on and that was not given out before.
///
/// Ports that the kernel gives to outgoing connections are left out: an engine that is away for a while must find its
/// port free when it comes back.
///
/// # Panics
/// If there is none.
pub fn spare_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let port = std::iter::repeat_with(|| fastrand::u16(12_000..32_000))
        .take(1_000)
        .find(|port| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 1,000 ports is spare");
    given.insert(port);
    port
}
