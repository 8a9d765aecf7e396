//! What all scans have in common while they are read: where they are, restart markers, and the end of their data.

use super::bits::{Bits, Restart};
use super::frame::Scan;

/// A scan that is being read, row of units by row of units.
pub(super) struct Pass<'f> {
    pub scan: &'f Scan<'f>,
    pub bits: Bits<'f>,
    /// The means of the blocks that were read last, one for each component of the scan.
    pub means: [i32; 4],
    /// Blocks to come that have no (more) coefficients in the band of the scan.
    pub empty_blocks: u32,
    /// Whether data are missing or make no sense.
    pub flawed: bool,
    /// Units of which data were there.
    pub units_read: u64,
    until_restart: u32,
    due: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// There are no data up to some restart marker.
    Lost,
    /// There are no data any more.
    Ended,
}

impl<'f> Pass<'f> {
    pub(super) fn new(scan: &'f Scan<'f>) -> Self {
        Self {
            scan,
            bits: Bits::new(scan.data),
            means: [0; 4],
            empty_blocks: 0,
            flawed: false,
            units_read: 0,
            until_restart: scan.interval,
            due: 0,
            state: State::Reading,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether a restart marker comes before the next unit, if there are any.
    #[inline(always)]
    pub(super) fn is_restart_due(&self) -> bool {
        self.until_restart == 0
    }

    /// To be called before each unit: whether there are data for it.
    #[inline(always)]
    pub(super) fn has_unit(&mut self) -> bool {
        if self.scan.interval != 0 {
            if self.until_restart == 0 {
                self.restart();
            }
            self.until_restart -= 1;
        }
        self.state == State::Reading
    }

    /// To be called after each unit for which there were data: whether they sufficed.
    #[inline(always)]
    pub(super) fn sufficed(&mut self) -> bool {
        let sufficed = !self.bits.is_overdrawn();
        if !sufficed {
            self.state = if self.scan.interval == 0 { State::Ended } else { State::Lost };
            self.flawed = true;
        }
        sufficed
    }

    #[cold]
    fn restart(&mut self) {
        self.until_restart = self.scan.interval;
        self.means = [0; 4];
        self.empty_blocks = 0;
        if self.state == State::Ended {
            return;
        }
        let outcome = self.bits.restart(self.due);
        self.due = (self.due + 1) & 7;
        self.flawed |= outcome != Restart::Found;
        self.state = match outcome {
            Restart::Found | Restart::FoundLater => State::Reading,
            Restart::Lost => State::Lost,
            Restart::End => State::Ended,
        };
    }
}
