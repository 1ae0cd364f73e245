//! How many files this process may hold open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many descriptors as the system lets this process have (the hard limit), and gives how many that are. A shell's
/// soft limit is mostly 1 024: less than the segments of a large log, or the files of a busy host.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(descriptor_limit())
}

/// How many it may hold open now.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
