//! An open file of the disk. It stays readable after its name is gone, and dies with the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use garam_disk::DiskFile;

use crate::content::Content;
use crate::fault::{self, Call, ENOSPC, Effect};
use crate::{Shared, held};

pub(crate) struct File {
    shared: Arc<Shared>,
    /// The name it was opened under.
    path: PathBuf,
    content: Arc<Mutex<Content>>,
    writable: bool,
}

impl File {
    pub(crate) fn new(
        shared: Arc<Shared>,
        path: &Path,
        content: Arc<Mutex<Content>>,
        writable: bool,
    ) -> Self {
        Self { shared, path: path.to_path_buf(), content, writable }
    }

    fn must_be_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl DiskFile for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Read, &self.path)?;
        verdict.end()?;
        let content = held(&self.content);
        let rest = content.cache().get(position(at)?..).unwrap_or_default();
        let mut len = rest.len().min(into.len());
        if verdict.effect == Some(Effect::Short) && len > 1 {
            len = 1 + state.random.up_to(len - 2);
        }
        into.iter_mut().zip(rest).take(len).for_each(|(to, from)| *to = *from);
        if verdict.effect == Some(Effect::Flip) && len > 0 {
            let (byte, bit) = (state.random.up_to(len - 1), state.random.up_to(7));
            into.iter_mut().skip(byte).take(1).for_each(|byte| *byte ^= 1 << bit);
        }
        Ok(len)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.must_be_writable()?;
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Write, &self.path)?;
        let at = position(at)?;
        let room = state.room();
        let mut content = held(&self.content);
        let growth = ((at + bytes.len()) as u64).saturating_sub(content.room());
        if growth > room {
            let fits = bytes.len() - position(growth - room)?.min(bytes.len());
            content.write(at, bytes.get(..fits).unwrap_or_default());
            return Err(fault::error(ENOSPC));
        }
        let whole = verdict.is_last() || !verdict.fails();
        let stored = if whole { bytes.len() } else { state.random.up_to(bytes.len()) };
        content.write(at, bytes.get(..stored).unwrap_or(bytes));
        verdict.end()
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.wait_while_stalled();
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Sync, &self.path)?;
        let mut content = held(&self.content);
        match verdict.end() {
            Ok(()) => content.sync(),
            Err(error) => {
                content.fail_sync();
                return Err(error);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.must_be_writable()?;
        let verdict = self.shared.state().meets(Call::SetLen, &self.path)?;
        held(&self.content).set_len(position(len)?);
        verdict.end()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.must_be_writable()?;
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Allocate, &self.path)?;
        let room = state.room();
        let mut content = held(&self.content);
        if len.saturating_sub(content.room()) > room {
            return Err(fault::error(ENOSPC));
        }
        content.allocate(position(len)?);
        verdict.end()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(held(&self.content).cache().len() as u64)
    }
}

fn position(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
