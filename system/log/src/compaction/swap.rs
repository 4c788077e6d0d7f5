//! Putting a cleaned group in the place of its segments, so that a stop at any moment leaves all of the old or all of the
//! new.
//!
//! ```text
//! 1. <base>.log.cleaned              written, synced       a crash: it is removed
//! 2. <base>-<end>.log.swap           renamed, dir synced   from here on it is decided: recovery goes on with 3
//! 3. old files in [base, end)        removed, dir synced   but <base>.log, and the snapshot at <base>
//! 4. <base>.log                      renamed, dir synced   replaces the old one
//! 5. <base>.pages, .index, …         written               missing ones are rebuilt
//! ```
//! The name of 2 says which segments it stands for: after 3 that cannot be told from what is left, and its last batch need
//! not reach `end`. What says something about the bytes of `<base>.log` goes in 3, durably before 4: new bytes are never
//! judged by old checksums. Snapshots in between go too, those at `base` and `end` stay: the state of producers comes from
//! them and never from a compacted log, which has forgotten most of it (KAFKA-12520).

use std::path::{Path, PathBuf};

use env::disk;

use super::cleaner::Cleaned;
use crate::checkpoint::Checkpoint;
use crate::log::Log;
use crate::pages::PageFile;
use crate::segment::log_path;
use crate::{LogError, Offset, format, recovery};

fn swap_path(dir: &Path, base: Offset, end: Offset) -> PathBuf {
    dir.join(format!("{base:020}-{end:020}.log.swap"))
}

/// What a stop has left of a swap.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// To be removed.
    Cleaned,
    /// To be finished.
    Swap { base: Offset, end: Offset },
}

pub(crate) fn leftover(name: &str) -> Option<Leftover> {
    let offset = |s: &str| Some(s).filter(|s| s.len() == 20)?.parse::<Offset>().ok();
    if let Some(stem) = name.strip_suffix(".log.cleaned") {
        return offset(stem).map(|_| Leftover::Cleaned);
    }
    let (base, end) = name.strip_suffix(".log.swap")?.split_once('-')?;
    Some(Leftover::Swap { base: offset(base)?, end: offset(end)? })
}

impl Log {
    /// Step 2. False if the log is not any more what the group was written from: it is dropped then. Between this and
    /// [`Log::swap_finish`] nothing else may be done to the log.
    pub async fn swap_begin(&mut self, cleaned: &Cleaned) -> Result<bool, LogError> {
        self.usable()?;
        if !self.is_of_this_log(cleaned) {
            super::cleaner::discard(&cleaned.file_path).await?;
            return Ok(false);
        }
        // Before the first hole can be met.
        self.update_checkpoint(|c| c.holes = true).await?;
        let dir = self.state.borrow().dir.clone();
        let to = swap_path(&dir, cleaned.segment.base, cleaned.end);
        let renamed = rename(&dir, &cleaned.file_path, &to).await;
        self.poison_if_fatal(renamed)?;
        Ok(true)
    }

    /// Step 3.
    pub async fn swap_remove(&mut self, cleaned: &Cleaned) -> Result<(), LogError> {
        let dir = self.state.borrow().dir.clone();
        let removed = remove_replaced(&dir, cleaned.segment.base, cleaned.end).await;
        self.poison_if_fatal(removed)
    }

    /// Steps 4 and 5.
    pub async fn swap_finish(&mut self, cleaned: Cleaned) -> Result<(), LogError> {
        let finished = self.finish_in_order(cleaned).await;
        self.poison_if_fatal(finished)
    }

    /// Everything below `offset` has been through the cleaner.
    pub async fn cleaned_to(&mut self, offset: Offset) -> Result<(), LogError> {
        self.usable()?;
        self.update_checkpoint(|c| c.first_dirty = c.first_dirty.max(offset)).await
    }

    fn is_of_this_log(&self, cleaned: &Cleaned) -> bool {
        let state = self.state.borrow();
        let within = state.segments.iter().filter(|s| s.base >= cleaned.segment.base && s.base < cleaned.end);
        let closed = state.active().base >= cleaned.end;
        state.truncations == cleaned.truncations
            && closed
            && within.map(|s| s.base).eq(cleaned.replaces.iter().copied())
    }

    async fn finish_in_order(&mut self, cleaned: Cleaned) -> Result<(), LogError> {
        let dir = self.state.borrow().dir.clone();
        let Cleaned { mut segment, end, replaces, controls, .. } = cleaned;
        let base = segment.base;
        env::sometimes!(true, "log: segments were replaced by a compacted one");
        rename(&dir, &swap_path(&dir, base, end), &segment.path).await?;
        segment.page_file = PageFile::open(segment.path.with_extension("pages")).await?;
        let page_write = segment.page_file.due(&segment.pages, 1);
        let side_files = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            // All at once: what readers hear of aborted transactions fits the bytes they read.
            state.aborted.retain_markers(base, end, &controls);
            let side_files = segment.side_files(&state.aborted);
            let at = state.segments.partition_point(|s| s.base < base);
            state.segments.splice(at..at + replaces.len(), [segment]);
            state.rewrites += 1;
            state.tail.drop_below(end);
            side_files
        };
        if let Some(write) = page_write {
            write.run().await?;
            let mut state = self.state.borrow_mut();
            if let Some(segment) = state.segments.iter_mut().find(|s| s.base == base) {
                write.done(&mut segment.pages);
            }
        }
        for (path, kind, payload) in &side_files {
            format::store(*kind, path, payload, false).await?;
        }
        Ok(())
    }

    /// Changes what the log remembers beyond its batches; durable on return.
    pub(crate) async fn update_checkpoint(&self, change: impl FnOnce(&mut Checkpoint)) -> Result<(), LogError> {
        let (dir, before) = {
            let state = self.state.borrow();
            (state.dir.clone(), state.checkpoint)
        };
        let mut next = before;
        change(&mut next);
        if next == before {
            return Ok(());
        }
        let stored = next.store(&dir).await;
        self.poison_if_fatal(stored)?;
        self.state.borrow_mut().checkpoint = next;
        Ok(())
    }
}

async fn rename(dir: &Path, from: &Path, to: &Path) -> Result<(), LogError> {
    disk::rename(from, to).await.map_err(LogError::storage("rename", from))?;
    disk::sync_dir(dir).await.map_err(LogError::storage("sync", dir))
}

async fn remove_replaced(dir: &Path, base: Offset, end: Offset) -> Result<(), LogError> {
    for name in recovery::files_replaced(dir, base, end).await? {
        disk::remove_file(&name).await.map_err(LogError::storage("remove", &name))?;
    }
    disk::sync_dir(dir).await.map_err(LogError::storage("sync", dir))
}

/// Whether the file of segment `of` goes in step 3.
pub(crate) fn is_replaced(of: Offset, extension: &str, base: Offset, end: Offset) -> bool {
    (base..end).contains(&of) && !(of == base && matches!(extension, "log" | "snapshot"))
}

/// Finishes a swap that a stop has interrupted.
pub(crate) async fn complete(dir: &Path, base: Offset, end: Offset) -> Result<(), LogError> {
    tracing::info!(dir = %dir.display(), base, end, "finishing the swap of a cleaned segment");
    env::sometimes!(true, "log: recovery finished a swap");
    remove_replaced(dir, base, end).await?;
    rename(dir, &swap_path(dir, base, end), &log_path(dir, base)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_stop_has_left() {
        let swap = swap_path(Path::new("d"), 7, 300);
        let name = swap.file_name().unwrap().to_str().unwrap();
        assert_eq!(leftover(name), Some(Leftover::Swap { base: 7, end: 300 }));
        assert_eq!(leftover("00000000000000000007.log.cleaned"), Some(Leftover::Cleaned));
        for other in ["00000000000000000007.log", "7.log.cleaned", "a-b.log.swap", "00000000000000000007.log.swap"] {
            assert_eq!(leftover(other), None, "{other}");
        }
        let goes = |of, extension| is_replaced(of, extension, 7, 300);
        assert!(goes(7, "pages") && goes(9, "log") && goes(9, "snapshot"));
        assert!(
            !goes(7, "log") && !goes(7, "snapshot") && !goes(300, "log") && !goes(300, "snapshot") && !goes(0, "log")
        );
    }
}
