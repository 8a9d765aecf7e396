//! Notices when a decoder has read all of a file and still goes on: lenient or strict, it makes up the rest of a
//! baseline scan whose data end early, as long as the end-of-image marker is there, and says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZCursor, ZSeekFrom};

/// What a reader and a decoder's poll have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    at_end: Arc<AtomicBool>,
    rows_after_end: Arc<AtomicU32>,
}

impl Watch {
    /// To be called when a decoder begins a row of blocks.
    pub(super) fn row_begins(&self) {
        if self.at_end.load(Relaxed) {
            self.rows_after_end.fetch_add(1, Relaxed);
        }
    }

    /// Rows of blocks that were begun after the last byte had been read.
    pub(super) fn rows_after_end(&self) -> u32 {
        self.rows_after_end.load(Relaxed)
    }
}

/// A file in memory that tells a [`Watch`] when its last two bytes, the end-of-image marker, are reached.
pub(super) struct Watched<'a> {
    cursor: ZCursor<&'a [u8]>,
    marker_at: u64,
    watch: Watch,
}

impl<'a> Watched<'a> {
    pub(super) fn new(file: &'a [u8], watch: Watch) -> Self {
        Self { cursor: ZCursor::new(file), marker_at: (file.len() as u64).saturating_sub(2), watch }
    }

    #[inline(always)]
    fn note<T>(&mut self, outcome: T) -> T {
        if self.cursor.z_position().is_ok_and(|position| position > self.marker_at) {
            self.watch.at_end.store(true, Relaxed);
        }
        outcome
    }
}

impl ZByteReaderTrait for Watched<'_> {
    #[inline(always)]
    fn read_byte_no_error(&mut self) -> u8 {
        let byte = self.cursor.read_byte_no_error();
        self.note(byte)
    }

    #[inline(always)]
    fn read_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        let outcome = self.cursor.read_exact_bytes(buffer);
        self.note(outcome)
    }

    #[inline(always)]
    fn read_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        let outcome = self.cursor.read_bytes(buffer);
        self.note(outcome)
    }

    #[inline(always)]
    fn peek_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        self.cursor.peek_bytes(buffer)
    }

    #[inline(always)]
    fn peek_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        self.cursor.peek_exact_bytes(buffer)
    }

    #[inline(always)]
    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        self.cursor.z_seek(from)
    }

    #[inline(always)]
    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        self.cursor.is_eof()
    }

    #[inline(always)]
    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        self.cursor.z_position()
    }

    fn read_remaining(&mut self, sink: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        self.cursor.read_remaining(sink)
    }
}
