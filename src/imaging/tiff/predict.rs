//! Reverses predictors row by row.

/// Reverses horizontal differences of 8, 16 or 32-bit samples (TIFF 6.0, section 14). `apart` is the number of samples
/// per pixel.
pub(super) fn add_neighbors(rows: &mut [u8], row_bytes: usize, bits: usize, apart: usize, big_endian: bool) {
    let size = bits / 8;
    for row in rows.chunks_mut(row_bytes) {
        for at in (apart * size..row.len() / size * size).step_by(size) {
            let before = at - apart * size;
            let (earlier, later) = row.split_at_mut(at);
            add(&earlier[before..before + size], &mut later[..size], big_endian);
        }
    }
}

fn add(left: &[u8], right: &mut [u8], big_endian: bool) {
    let mut carry = 0;
    for place in 0..right.len() {
        let place = if big_endian { right.len() - 1 - place } else { place };
        let sum = u16::from(left[place]) + u16::from(right[place]) + carry;
        right[place] = sum as u8;
        carry = sum >> 8;
    }
}

/// Reverses the floating-point predictor (Adobe's TIFF technical note 3). The result is big-endian.
pub(super) fn join_floats(rows: &mut [u8], row_bytes: usize, bits: usize, apart: usize) {
    let size = bits / 8;
    let mut sorted = Vec::with_capacity(row_bytes);
    for row in rows.chunks_exact_mut(row_bytes) {
        for at in apart..row.len() {
            row[at] = row[at].wrapping_add(row[at - apart]);
        }
        sorted.clear();
        sorted.extend_from_slice(row);
        let count = row.len() / size;
        for (index, number) in row.chunks_exact_mut(size).enumerate() {
            for (place, byte) in number.iter_mut().enumerate() {
                *byte = sorted[place * count + index];
            }
        }
    }
}
