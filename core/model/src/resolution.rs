//! The four resolutions: raw samples and the 60 s, 15 min and 60 min rollups.

use crate::time::SECOND_US;

/// How finely time is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Samples as they were sent.
    Raw,
    /// Bins of 60 s.
    S60,
    /// Bins of 15 min.
    M15,
    /// Bins of 60 min.
    M60,
}

impl Resolution {
    /// All rollups, finest first: each is folded from the one before it.
    pub const ROLLUPS: [Self; 3] = [Self::S60, Self::M15, Self::M60];

    /// The length of one bin in µs; `None` for raw.
    #[must_use]
    pub fn bin_us(self) -> Option<i64> {
        match self {
            Self::Raw => None,
            Self::S60 => Some(60 * SECOND_US),
            Self::M15 => Some(900 * SECOND_US),
            Self::M60 => Some(3600 * SECOND_US),
        }
    }

    /// The value of the table's `resolution` partition column for sealed files.
    #[must_use]
    pub fn partition(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::S60 => "60s",
            Self::M15 => "15m",
            Self::M60 => "60m",
        }
    }

    /// The SQL table that shows this resolution.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Raw => "samples",
            Self::S60 => "rollup_60s",
            Self::M15 => "rollup_15m",
            Self::M60 => "rollup_60m",
        }
    }
}
