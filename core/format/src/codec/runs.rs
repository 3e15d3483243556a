//! A column as runs of equal entries.

/// A sequence stored as (entry, repetitions); neighbouring runs differ.
#[derive(Debug, Clone)]
pub(crate) struct Runs<T> {
    runs: Vec<(T, usize)>,
    len: usize,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    /// Appends `n` repetitions of `entry`.
    #[inline]
    pub fn push(&mut self, entry: T, n: usize) {
        if n == 0 {
            return;
        }
        self.len += n;
        match self.runs.last_mut() {
            Some(last) if last.0 == entry => last.1 += n,
            _ => self.runs.push((entry, n)),
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The runs in order.
    pub fn as_slice(&self) -> &[(T, usize)] {
        &self.runs
    }

    pub fn clear(&mut self) {
        self.runs.clear();
        self.len = 0;
    }

    /// A cursor at the first entry.
    pub fn cursor(&self) -> Cursor<'_, T> {
        Cursor {
            runs: &self.runs,
            used: 0,
        }
    }
}

/// Reads runs piece by piece.
#[derive(Clone)]
pub(crate) struct Cursor<'a, T> {
    runs: &'a [(T, usize)],
    used: usize,
}

impl<T: Copy> Cursor<'_, T> {
    /// Visits the next `n` entries (fewer at the end) as runs.
    pub fn take(&mut self, mut n: usize, mut visit: impl FnMut(T, usize)) {
        while n > 0
            && let Some((entry, len)) = self.runs.first().copied()
        {
            let here = n.min(len - self.used);
            visit(entry, here);
            n -= here;
            self.used += here;
            if self.used == len {
                self.runs = &self.runs[1..];
                self.used = 0;
            }
        }
    }
}
