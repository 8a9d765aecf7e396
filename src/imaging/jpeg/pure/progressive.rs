//! Decodes progressive scans (ITU-T T.81, G). All scans advance together by rows of units, so only the coefficients of
//! one row are stored, and they stay in the cache.

use fearless_simd::Simd;

use super::bits::Bits;
use super::entropy::Pass;
use super::frame::{Component, Frame, band};
use super::huffman::Table;
use super::idct::{self, PLACES};
use super::planes::Plane;

/// Coefficients of one component in a row of units.
pub(super) struct Store {
    /// Used coefficients, block by block in zigzag order.
    coefficients: Vec<i16>,
    /// For each block, which coefficients except the first are nonzero, used or not.
    present: Vec<u64>,
    kept: usize,
    /// Blocks across.
    stride: usize,
    factors: [i32; 64],
}

impl Store {
    pub(super) fn new(component: &Component, frame: &Frame<'_>) -> Self {
        let (stride, kept) = (frame.units.0 * component.across, component.kept());
        let blocks = stride * component.down;
        Self {
            coefficients: vec![0; blocks * kept],
            present: vec![0; blocks],
            kept,
            stride,
            factors: component.factors(),
        }
    }

    #[inline(always)]
    fn block(&mut self, across: usize, down: usize) -> (&mut [i16], &mut u64) {
        let index = down * self.stride + across;
        (&mut self.coefficients[index * self.kept..(index + 1) * self.kept], &mut self.present[index])
    }

    /// Transforms all blocks to samples and clears them.
    #[inline(always)]
    pub(super) fn transform<S: Simd>(&mut self, simd: S, component: &Component, plane: &mut Plane) {
        let used = u64::MAX >> (64 - self.kept);
        let blocks = self.coefficients.chunks_exact_mut(self.kept).zip(&mut self.present);
        for (index, (coefficients, present)) in blocks.enumerate() {
            let mut block = [0; 64];
            let all = std::mem::take(present) & used | 1;
            let mut rest = all;
            while rest != 0 {
                let number = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let coefficient = i32::from(std::mem::take(&mut coefficients[number]));
                block[usize::from(PLACES[number])] = (coefficient * self.factors[number]) as i16;
            }
            let target = plane.target(index % self.stride, index / self.stride);
            idct::transform(simd, &block, all, component.side, target);
        }
    }
}

/// Decodes row `row` of units of a progressive scan into `stores`.
#[inline(always)]
pub(super) fn read_row(pass: &mut Pass<'_>, frame: &Frame<'_>, row: usize, stores: &mut [Store]) {
    if pass.has_ended() {
        pass.damaged = true;
        return;
    }
    let scan = pass.scan;
    match (scan.first == 0, scan.refines) {
        (true, true) => read_blocks(
            pass,
            frame,
            row,
            stores,
            #[inline(always)]
            |_, pass, bits, block, _| refine_mean(bits, pass, block),
        ),
        (true, false) => read_blocks(
            pass,
            frame,
            row,
            stores,
            #[inline(always)]
            |place, pass, bits, block, _| read_mean(bits, pass, place, block),
        ),
        (false, refines) => {
            let Some(table) = scan.parts[0].alternating.as_deref() else { return };
            if refines {
                let band = band(scan.first, scan.last);
                read_blocks(
                    pass,
                    frame,
                    row,
                    stores,
                    #[inline(always)]
                    |_, pass, bits, block, present| refine_band(bits, pass, table, band, block, present),
                );
            } else {
                read_blocks(
                    pass,
                    frame,
                    row,
                    stores,
                    #[inline(always)]
                    |_, pass, bits, block, present| read_band(bits, pass, table, block, present),
                );
            }
        }
    }
}

/// Calls `read` for each block of a scan in a row of units, with the component's index in the scan.
#[inline(always)]
fn read_blocks<'f>(
    pass: &mut Pass<'f>,
    frame: &Frame<'_>,
    row: usize,
    stores: &mut [Store],
    mut read: impl FnMut(usize, &mut Pass<'f>, &mut Bits<'f>, &mut [i16], &mut u64),
) {
    if let [only] = &pass.scan.parts[..] {
        let component = &frame.components[only.component];
        let store = &mut stores[only.component];
        for down in 0..component.down.min(component.blocks.1.saturating_sub(row * component.down)) {
            for across in 0..component.blocks.0 {
                if !pass.has_unit() {
                    continue;
                }
                let (block, present) = store.block(across, down);
                let mut bits = pass.bits;
                read(0, pass, &mut bits, block, present);
                pass.bits = bits;
                pass.units_read += u64::from(pass.sufficed());
            }
        }
        return;
    }
    for unit in 0..frame.units.0 {
        if !pass.has_unit() {
            continue;
        }
        for (place, part) in pass.scan.parts.iter().enumerate() {
            let component = &frame.components[part.component];
            for down in 0..component.down {
                for across in 0..component.across {
                    let (block, present) = stores[part.component].block(unit * component.across + across, down);
                    let mut bits = pass.bits;
                    read(place, pass, &mut bits, block, present);
                    pass.bits = bits;
                }
            }
        }
        pass.units_read += u64::from(pass.sufficed());
    }
}

#[inline(always)]
fn read_mean(bits: &mut Bits<'_>, pass: &mut Pass<'_>, place: usize, block: &mut [i16]) {
    let Some(table) = pass.scan.parts[place].direct.as_deref() else { return };
    let difference = table.read(bits).value;
    let mean = pass.means[place & 3].wrapping_add(difference);
    pass.means[place & 3] = mean;
    block[0] = (mean << pass.scan.bit) as i16;
}

#[inline(always)]
fn refine_mean(bits: &mut Bits<'_>, pass: &Pass<'_>, block: &mut [i16]) {
    bits.refill();
    block[0] |= (bits.take(1) << pass.scan.bit) as i16;
}

/// Returns the number of blocks without more coefficients, including this one; `symbol` is the end-of-band code.
#[inline(always)]
fn empty_blocks(bits: &mut Bits<'_>, symbol: u32) -> u32 {
    let size = symbol >> 4;
    (1 << size) + bits.take(size)
}

#[inline(always)]
fn read_band(bits: &mut Bits<'_>, pass: &mut Pass<'_>, table: &Table, block: &mut [i16], present: &mut u64) {
    if pass.empty_blocks > 0 {
        pass.empty_blocks -= 1;
        return;
    }
    let (mut number, last, bit) = (pass.scan.first, pass.scan.last, pass.scan.bit);
    while number <= last {
        let coded = table.read(bits);
        if coded.value != 0 {
            number += coded.run();
            if number > last {
                bits.invalid_code = true;
                break;
            }
            if let Some(coefficient) = block.get_mut(number as usize) {
                *coefficient = (coded.value << bit) as i16;
            }
            *present |= 1 << number;
            number += 1;
        } else if coded.symbol == 0xf0 {
            number += 16;
        } else {
            bits.refill();
            pass.empty_blocks = empty_blocks(bits, coded.symbol) - 1;
            break;
        }
    }
}

#[inline(always)]
fn refine_band(
    bits: &mut Bits<'_>,
    pass: &mut Pass<'_>,
    table: &Table,
    band: u64,
    block: &mut [i16],
    present: &mut u64,
) {
    let (history, step) = (*present & band, (1_i32 << pass.scan.bit) as i16);
    // Remaining coefficients of the band.
    let mut rest = band;
    if pass.empty_blocks == 0 {
        while rest != 0 {
            let coded = table.read(bits);
            if coded.value == 0 && coded.symbol != 0xf0 {
                bits.refill();
                pass.empty_blocks = empty_blocks(bits, coded.symbol);
                break;
            }
            // The run counts only zeros; each nonzero coefficient in between gets a correction bit.
            let mut zeros = rest & !history;
            for _ in 0..coded.run() {
                zeros &= zeros.wrapping_sub(1);
            }
            let place = zeros & zeros.wrapping_neg();
            let passed = if place == 0 { rest } else { rest & (place - 1) };
            refine(bits, history & passed, step, block);
            rest &= !(passed | place);
            if coded.value != 0 {
                bits.invalid_code |= place == 0;
                *present |= place;
                if let Some(coefficient) = block.get_mut(place.trailing_zeros() as usize) {
                    *coefficient = if coded.value < 0 { step.wrapping_neg() } else { step };
                }
            }
        }
    }
    if pass.empty_blocks > 0 {
        refine(bits, history & rest, step, block);
        pass.empty_blocks -= 1;
    }
}

/// Reads a bit for each coefficient in `which`; a set bit increases its magnitude by `step`.
#[inline(always)]
fn refine(bits: &mut Bits<'_>, mut which: u64, step: i16, block: &mut [i16]) {
    while which != 0 {
        bits.fill();
        let mut word = bits.word();
        let count = which.count_ones().min(56);
        for _ in 0..count {
            let number = which.trailing_zeros() as usize;
            which &= which - 1;
            if let Some(coefficient) = block.get_mut(number) {
                let sign = *coefficient >> 15;
                // The step with the coefficient's sign, or zero.
                let change = ((step ^ sign).wrapping_sub(sign)) & (word as i64 >> 63) as i16;
                *coefficient = coefficient.wrapping_add(change);
            }
            word <<= 1;
        }
        bits.skip(count);
    }
}
