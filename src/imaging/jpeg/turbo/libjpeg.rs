//! All calls to libjpeg. `error_exit` reports an error by an unwinding panic, which passes through libjpeg's C frames
//! (compiled with unwind tables) and is caught here.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem::{size_of, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys as lib;
use mozjpeg_sys::J_COLOR_SPACE::JCS_RGB;
use mozjpeg_sys::{boolean, jpeg_common_struct, jpeg_compress_struct};

use crate::imaging::error::Error;

/// Settings of [`compress`].
pub(super) struct Writing {
    pub quality: u8,
    /// Halve the chroma resolution in both directions.
    pub half_color: bool,
    pub coding: Coding,
}

/// Encoding effort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// One pass with the Huffman tables of the specification.
    Plain,
    /// Huffman tables optimized for the image.
    Optimized,
    /// Progressive, with trellis quantization.
    Smallest,
}

/// Encodes `data`, three samples per pixel.
pub(super) fn compress(data: &[u8], size: (u32, u32), writing: &Writing) -> Result<Vec<u8>, Error> {
    let mut session = Box::new(Writer {
        // SAFETY: plain C data for which zeroes are valid; libjpeg fills it in.
        info: unsafe { zeroed() },
        manager: manager(),
        // SAFETY: as above.
        sink: Sink { manager: unsafe { zeroed() }, bytes: Vec::with_capacity(data.len() / 16 + 4096) },
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| session.write(data, size, writing)));
    outcome.map_err(|payload| Error::Internal(error_of(payload).to_string().into()))?;
    Ok(std::mem::take(&mut session.sink.bytes))
}

/// Panic payload of `error_exit`.
struct Thrown(Error);

fn throw(error: Error) -> ! {
    // Not `panic!`: the panic hook must not log this.
    resume_unwind(Box::new(Thrown(error)))
}

fn error_of(payload: Box<dyn Any + Send>) -> Error {
    match payload.downcast::<Thrown>() {
        Ok(thrown) => thrown.0,
        Err(other) => resume_unwind(other),
    }
}

/// Returns an error manager that panics on errors and ignores warnings: the pixels are our own.
fn manager() -> lib::jpeg_error_mgr {
    // SAFETY: plain C data for which zeroes are valid; libjpeg fills it in.
    let mut manager: lib::jpeg_error_mgr = unsafe { zeroed() };
    // SAFETY: it only sets fields of the given structure.
    unsafe { lib::jpeg_std_error(&mut manager) };
    manager.error_exit = Some(error_exit);
    manager.emit_message = Some(emit_message);
    manager
}

/// Maximum bytes of a message (libjpeg's JMSG_LENGTH_MAX).
const MAX_MESSAGE_CHARS: usize = 200;

unsafe extern "C-unwind" fn error_exit(info: &mut jpeg_common_struct) {
    type Format = unsafe extern "C-unwind" fn(*mut jpeg_common_struct, *mut u8);
    let mut words = [0_u8; MAX_MESSAGE_CHARS];
    // SAFETY: `info` belongs to a session of this file, whose manager outlives it.
    let format = unsafe { (*info.err).format_message };
    if let Some(format) = format {
        // SAFETY: the C function takes two pointers and writes to the second. Its Rust declaration has a shared
        // reference to too few bytes there, so the type is corrected.
        unsafe {
            let format: Format = std::mem::transmute(format);
            format(info, words.as_mut_ptr());
        }
    }
    let end = words.iter().position(|byte| *byte == 0).unwrap_or(words.len());
    throw(Error::damaged(String::from_utf8_lossy(&words[..end]).into_owned()))
}

unsafe extern "C-unwind" fn emit_message(_: &mut jpeg_common_struct, _: i32) {}

struct Writer {
    info: jpeg_compress_struct,
    manager: lib::jpeg_error_mgr,
    sink: Sink,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: frees what the structure owns; an uninitialized one is all zeros and owns nothing.
        unsafe { lib::jpeg_destroy_compress(&mut self.info) };
    }
}

impl Writer {
    fn write(&mut self, data: &[u8], size: (u32, u32), writing: &Writing) {
        let row_bytes = size.0 as usize * 3;
        if data.len() != row_bytes * size.1 as usize {
            throw(Error::damaged("the pixels do not fill their frame"));
        }
        let rows: Vec<*const u8> = data.chunks_exact(row_bytes).map(<[u8]>::as_ptr).collect();
        // SAFETY: the session is boxed, so pointers between its parts stay valid while libjpeg runs. `comp_info` points
        // at the components set by the defaults. `rows` points at as many rows of `image_width` pixels, which libjpeg
        // only reads.
        unsafe {
            self.info.common.err = &raw mut self.manager;
            lib::jpeg_CreateCompress(&mut self.info, lib::JPEG_LIB_VERSION, size_of::<jpeg_compress_struct>());
            self.sink.manager.init_destination = Some(sink_begins);
            self.sink.manager.empty_output_buffer = Some(sink_is_full);
            self.sink.manager.term_destination = Some(sink_ends);
            self.info.dest = (&raw mut self.sink).cast();
            (self.info.image_width, self.info.image_height) = size;
            self.info.input_components = 3;
            self.info.in_color_space = JCS_RGB;
            let profile = if writing.coding == Coding::Smallest { lib::JCP_MAX_COMPRESSION } else { lib::JCP_FASTEST };
            lib::jpeg_c_set_int_param(&mut self.info, lib::JINT_COMPRESS_PROFILE, profile as i32);
            lib::jpeg_set_defaults(&mut self.info);
            lib::jpeg_set_quality(&mut self.info, i32::from(writing.quality), 1);
            self.info.optimize_coding = boolean::from(writing.coding != Coding::Plain);
            let luma = &mut *self.info.comp_info;
            let factor = if writing.half_color { 2 } else { 1 };
            (luma.h_samp_factor, luma.v_samp_factor) = (factor, factor);
            lib::jpeg_start_compress(&mut self.info, 1);
            lib::jpeg_write_scanlines(&mut self.info, rows.as_ptr(), rows.len() as u32);
            lib::jpeg_finish_compress(&mut self.info);
        }
    }
}

/// Output of libjpeg. The manager is the first field, so both have the same address.
#[repr(C)]
struct Sink {
    manager: lib::jpeg_destination_mgr,
    bytes: Vec<u8>,
}

impl Sink {
    /// Returns the sink of the session of `info`.
    ///
    /// # Safety
    /// `info.dest` must point at the manager of a live [`Sink`] without other references during `'a`.
    unsafe fn of<'a>(info: &jpeg_compress_struct) -> &'a mut Self {
        // SAFETY: as the caller promises; the manager is the first field of a `repr(C)` structure.
        unsafe { &mut *info.dest.cast::<Self>() }
    }

    /// Offers the free space after the written bytes.
    fn offer(&mut self) {
        let free = self.bytes.spare_capacity_mut();
        self.manager.next_output_byte = free.as_mut_ptr().cast();
        self.manager.free_in_buffer = free.len();
    }
}

unsafe extern "C-unwind" fn sink_begins(info: &mut jpeg_compress_struct) {
    // SAFETY: only the compressor of a session of this file has these functions, and it calls them one at a time.
    unsafe { Sink::of(info) }.offer();
}

unsafe extern "C-unwind" fn sink_is_full(info: &mut jpeg_compress_struct) -> boolean {
    // SAFETY: as in `sink_begins`. libjpeg calls this when the offered space is full.
    unsafe {
        let sink = Sink::of(info);
        sink.bytes.set_len(sink.bytes.capacity());
        sink.bytes.reserve(sink.bytes.len());
        sink.offer();
    }
    1
}

unsafe extern "C-unwind" fn sink_ends(info: &mut jpeg_compress_struct) {
    // SAFETY: as in `sink_begins`. All offered bytes except `free_in_buffer` have been written.
    unsafe {
        let sink = Sink::of(info);
        sink.bytes.set_len(sink.bytes.capacity() - sink.manager.free_in_buffer);
    }
}
