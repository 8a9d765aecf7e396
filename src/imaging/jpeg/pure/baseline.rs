//! Decodes sequential scans: each block is complete when read, so it becomes samples at once (ITU-T T.81, F.2.2).

use fearless_simd::Simd;

use super::bits::Bits;
use super::entropy::Pass;
use super::frame::{Component, Frame};
use super::huffman::Table;
use super::idct::{self, Block, PLACES};
use super::planes::Plane;

/// State of one component of a scan.
struct Reader<'f> {
    component: &'f Component,
    index: usize,
    direct: &'f Table,
    alternating: &'f Table,
    factors: [i32; 64],
    mean: i32,
}

/// Decodes row `row` of units of a sequential scan into `planes`.
#[inline(always)]
pub(super) fn read_row<S: Simd>(simd: S, pass: &mut Pass<'_>, frame: &Frame<'_>, row: usize, planes: &mut [Plane]) {
    let mut readers: Vec<Reader<'_>> = Vec::with_capacity(4);
    for (part, mean) in pass.scan.parts.iter().zip(pass.means) {
        let component = &frame.components[part.component];
        let (Some(direct), Some(alternating)) = (part.direct.as_deref(), part.alternating.as_deref()) else { return };
        let factors = component.factors();
        readers.push(Reader { component, index: part.component, direct, alternating, factors, mean });
    }
    match &mut readers[..] {
        [only] => read_alone(simd, pass, row, only, &mut planes[only.index]),
        readers => read_together(simd, pass, frame.units.0, readers, planes),
    }
    for (mean, reader) in pass.means.iter_mut().zip(&readers) {
        *mean = reader.mean;
    }
}

#[inline(always)]
fn read_alone<S: Simd>(simd: S, pass: &mut Pass<'_>, row: usize, reader: &mut Reader<'_>, plane: &mut Plane) {
    let component = reader.component;
    for down in 0..component.down.min(component.blocks.1.saturating_sub(row * component.down)) {
        for across in 0..component.blocks.0 {
            let is_there = begin_unit(pass, std::slice::from_mut(reader));
            reader.block(simd, pass, is_there, plane, (across, down));
            pass.units_read += u64::from(is_there);
        }
    }
}

#[inline(always)]
fn read_together<S: Simd>(
    simd: S,
    pass: &mut Pass<'_>,
    units: usize,
    readers: &mut [Reader<'_>],
    planes: &mut [Plane],
) {
    for unit in 0..units {
        let is_there = begin_unit(pass, readers);
        for reader in &mut *readers {
            let component = reader.component;
            for down in 0..component.down {
                for across in 0..component.across {
                    let place = (unit * component.across + across, down);
                    reader.block(simd, pass, is_there, &mut planes[reader.index], place);
                }
            }
        }
        pass.units_read += u64::from(is_there);
    }
}

/// Returns whether data exists for the next unit; resets the means after a restart marker.
#[inline(always)]
fn begin_unit(pass: &mut Pass<'_>, readers: &mut [Reader<'_>]) -> bool {
    let restarts = pass.scan.interval != 0 && pass.is_restart_due();
    let is_there = pass.has_unit();
    if restarts {
        readers.iter_mut().for_each(|reader| reader.mean = 0);
    }
    is_there
}

impl Reader<'_> {
    #[inline(always)]
    fn block<S: Simd>(
        &mut self,
        simd: S,
        pass: &mut Pass<'_>,
        is_there: bool,
        plane: &mut Plane,
        (across, down): (usize, usize),
    ) {
        let side = self.component.side;
        let target = plane.target(across, down);
        if !is_there || pass.bits.is_overdrawn() {
            return idct::leave_gray(side, target);
        }
        let mut block = [0; 64];
        let mut bits = pass.bits;
        let present = self.coefficients(&mut bits, &mut block);
        pass.bits = bits;
        if pass.sufficed() {
            idct::transform(simd, &block, present, side, target);
        } else {
            idct::leave_gray(side, target);
        }
    }

    /// Reads and dequantizes a block's coefficients; returns which may be nonzero.
    #[inline(always)]
    fn coefficients(&mut self, bits: &mut Bits<'_>, block: &mut Block) -> u64 {
        let difference = self.direct.read(bits).value;
        // More than 16 bits are invalid; truncation keeps products in range.
        self.mean = i32::from(self.mean.wrapping_add(difference) as i16);
        block[0] = (self.mean * self.factors[0]) as i16;
        let (mut present, mut number) = (1, 1);
        while number < 64 {
            let coded = self.alternating.read(bits);
            if coded.value != 0 {
                number += coded.run() as usize;
                if number > 63 {
                    bits.invalid_code = true;
                    break;
                }
                block[usize::from(PLACES[number]) & 63] = (coded.value * self.factors[number]) as i16;
                present |= 1 << number;
                number += 1;
            } else if coded.symbol == 0xf0 {
                number += 16;
            } else {
                break;
            }
        }
        present
    }
}
