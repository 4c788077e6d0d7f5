//! Giving up a log's beginning: whole segments that are not needed any more, or all of it.

use std::path::PathBuf;

use env::clock::Instant;
use env::disk;

use crate::log::Log;
use crate::segment::{Segment, log_path};
use crate::{LogError, Offset, recovery, snapshot};

impl Log {
    /// Removes the segments that lie below `offset` whole, oldest first, each durably before the next: a crash leaves
    /// no gap. The active segment stays. A reader of what is gone gets [`LogError::OutOfRange`].
    pub async fn delete_before(&mut self, offset: Offset) -> Result<(), LogError> {
        self.usable()?;
        loop {
            let (dir, base) = {
                let mut state = self.state.borrow_mut();
                match state.segments.get(1) {
                    Some(second) if second.base <= offset => {}
                    _ => return Ok(()),
                }
                // First for readers: none is to begin on a file that goes.
                state.start = state.start.max(state.segments[1].base);
                let start = state.start;
                state.aborted.forget_below(start);
                let gone = state.segments.remove(0);
                (state.dir.clone(), gone.base)
            };
            let removed = remove_segment(dir, base).await;
            self.poison_if_fatal(removed)?;
        }
    }

    /// Removes everything and begins anew at `offset`, past the log's present end or before it. Durable on return. A
    /// crash on the way leaves a beginning of the old log, maybe empty, or the new one.
    pub async fn reset_to(&mut self, offset: Offset, now: Instant) -> Result<(), LogError> {
        self.usable()?;
        let result = self.reset_in_order(offset, now).await;
        self.poison_if_fatal(result)
    }

    async fn reset_in_order(&mut self, offset: Offset, now: Instant) -> Result<(), LogError> {
        let (dir, config, bases) = {
            let mut state = self.state.borrow_mut();
            state.truncations += 1;
            state.tail.clear();
            let bases: Vec<Offset> = state.segments.iter().map(|s| s.base).collect();
            (state.dir.clone(), state.config.clone(), bases)
        };
        // What it says of offsets is of the log that goes. That there are holes stays true of what a crash leaves of it.
        self.update_checkpoint(|c| (c.start, c.first_dirty) = (0, 0)).await?;
        // From the last one down, as a truncation goes, so that what is left at any moment is a log.
        for base in bases.into_iter().rev() {
            remove_segment(dir.clone(), base).await?;
        }
        Segment::create(&dir, offset).await?;
        disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))?;
        let (mut fresh, _) = recovery::recover(&dir, config, Offset::MAX, now).await?;
        let mut state = self.state.borrow_mut();
        fresh.truncations = state.truncations + 1;
        *state = fresh;
        Ok(())
    }
}

/// Removes a segment, first what says something about it. What stays of a crash, recovery removes as no segment's.
async fn remove_segment(dir: PathBuf, base: Offset) -> Result<(), LogError> {
    let log = log_path(&dir, base);
    let beside = ["pages", "index", "timeindex", "txnindex"].map(|extension| log.with_extension(extension));
    for path in beside.into_iter().chain([snapshot::path(&dir, base), log]) {
        match disk::remove_file(&path).await {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(LogError::storage("remove", &path))?,
        }
    }
    disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))
}
