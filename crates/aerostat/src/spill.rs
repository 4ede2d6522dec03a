//! Pages of the KV cache that wait on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aerostat_backend::Backend;

/// Where a page lies in the file.
pub(crate) type Slot = u64;

/// A file of pages, made when the first one comes. It disappears with this value, and where the system lets open files
/// be deleted, also if the process is killed.
#[derive(Debug)]
pub(crate) struct Spill {
    folder: PathBuf,
    file: Option<File>,
    /// To be deleted at the end.
    path: Option<PathBuf>,
    free: Vec<Slot>,
    slots: Slot,
    /// One page on its way.
    page: Vec<u8>,
    page_bytes: usize,
    pub(crate) written_bytes: u64,
    pub(crate) read_bytes: u64,
}

impl Spill {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file: None,
            path: None,
            free: Vec::new(),
            slots: 0,
            page: Vec::new(),
            page_bytes: 0,
            written_bytes: 0,
            read_bytes: 0,
        }
    }

    /// Writes pages, all or none of them.
    pub(crate) fn save(&mut self, backend: &mut dyn Backend, pages: &[u32]) -> io::Result<Vec<Slot>> {
        let mut saved = Vec::with_capacity(pages.len());
        for &page in pages {
            match self.save_page(backend, page) {
                Ok(slot) => saved.push(slot),
                Err(error) => {
                    self.free.append(&mut saved);
                    return Err(error);
                }
            }
        }
        Ok(saved)
    }

    fn save_page(&mut self, backend: &mut dyn Backend, page: u32) -> io::Result<Slot> {
        self.page.clear();
        backend.kv_save(page, &mut |bytes| self.page.extend_from_slice(bytes)).map_err(io::Error::other)?;
        self.page_bytes = self.page.len();
        self.create()?;
        let slot = self.free.pop().unwrap_or(self.slots);
        self.slots = self.slots.max(slot + 1);
        let written = self.at(slot).and_then(|mut file| file.write_all(&self.page));
        if let Err(error) = written {
            self.free.push(slot);
            return Err(error);
        }
        self.written_bytes += self.page.len() as u64;
        Ok(slot)
    }

    /// Reads a page back.
    pub(crate) fn load(&mut self, backend: &mut dyn Backend, slot: Slot, page: u32) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.page);
        bytes.resize(self.page_bytes, 0);
        let read = self.at(slot).and_then(|mut file| file.read_exact(&mut bytes));
        self.page = bytes;
        read?;
        self.read_bytes += self.page.len() as u64;
        let mut rest = self.page.as_slice();
        let mut give = |bytes: &mut [u8]| {
            let (now, later) = rest.split_at(bytes.len().min(rest.len()));
            bytes[..now.len()].copy_from_slice(now);
            rest = later;
        };
        backend.kv_load(page, &mut give).map_err(io::Error::other)
    }

    /// Forgets pages.
    pub(crate) fn free(&mut self, slots: Vec<Slot>) {
        self.free.extend(slots);
    }

    /// The file at the place of a slot.
    fn at(&self, slot: Slot) -> io::Result<&File> {
        let mut file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start(slot * self.page_bytes as u64))?;
        Ok(file)
    }

    fn create(&mut self) -> io::Result<()> {
        let mut number = 0;
        while self.file.is_none() {
            let path = self.folder.join(format!(".aerostat-{}-{number}.kv", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    self.file = Some(file);
                    self.path = fs::remove_file(&path).is_err().then_some(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.file = None;
        if let Some(path) = self.path.take() {
            let _ = fs::remove_file(path);
        }
    }
}
