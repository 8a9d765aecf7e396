//! Common state of reading scans: position, restart markers, end of data.

use super::bits::{Bits, Restart};
use super::frame::Scan;

/// A scan being read, one row of units at a time.
pub(super) struct Pass<'f> {
    pub scan: &'f Scan<'f>,
    pub bits: Bits<'f>,
    /// Mean of the last block of each component.
    pub means: [i32; 4],
    /// Number of following blocks without (more) coefficients in the scan's band.
    pub empty_blocks: u32,
    /// Whether data is missing or invalid.
    pub damaged: bool,
    /// Number of units with data.
    pub units_read: u64,
    until_restart: u32,
    due: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// Data is missing up to a restart marker.
    Lost,
    /// No data is left.
    Ended,
}

impl<'f> Pass<'f> {
    pub(super) fn new(scan: &'f Scan<'f>) -> Self {
        Self {
            scan,
            bits: Bits::new(scan.data),
            means: [0; 4],
            empty_blocks: 0,
            damaged: false,
            units_read: 0,
            until_restart: scan.interval,
            due: 0,
            state: State::Reading,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Returns whether a restart marker precedes the next unit.
    #[inline(always)]
    pub(super) fn is_restart_due(&self) -> bool {
        self.until_restart == 0
    }

    /// Call before each unit: returns whether data exists for it.
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

    /// Call after each unit with data: returns whether the data sufficed.
    #[inline(always)]
    pub(super) fn sufficed(&mut self) -> bool {
        let sufficed = !self.bits.is_overdrawn();
        if !sufficed {
            self.state = if self.scan.interval == 0 { State::Ended } else { State::Lost };
            self.damaged = true;
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
        self.damaged |= outcome != Restart::Found;
        self.state = match outcome {
            Restart::Found | Restart::FoundLater => State::Reading,
            Restart::Lost => State::Lost,
            Restart::End => State::Ended,
        };
    }
}
