//! One pass of the cleaner over a partition's log: reads and writes beside it, has the driver swap in what was written.
//!
//! Crash points: `clean.read`, `clean.write` here; `clean.swap`, `clean.remove`, `clean.rename`, `clean.checkpoint` in the
//! driver.

use env::clock;
use env::node::{When, crash_point};
use log::compaction::Dirty;
use log::{CleanerConfig, LogError};

use super::Partition;
use super::driver::ROLE;

impl Partition {
    /// Cleans what was found dirty. True once all of it is; false if the log changed meanwhile, or failed and has told its
    /// broker.
    ///
    /// # Errors
    /// What stopped the pass: of a full disk nothing is left but a file that the next pass overwrites.
    pub async fn clean(&self, dirty: Dirty, config: &CleanerConfig) -> Result<bool, LogError> {
        let index = Some(self.id().partition);
        crash_point(ROLE, "clean.read", index, When::Before).await;
        let cleaner = self.reader().cleaner();
        let begun = cleaner.begin(dirty, config, clock::wall_ms(), clock::now()).await?;
        crash_point(ROLE, "clean.read", index, When::After).await;
        let Some(mut pass) = begun else { return Ok(false) };
        loop {
            crash_point(ROLE, "clean.write", index, When::Before).await;
            let cleaned = pass.next().await?;
            crash_point(ROLE, "clean.write", index, When::After).await;
            let Some(cleaned) = cleaned else { break };
            if self.swap(cleaned).await != Ok(true) {
                env::sometimes!(true, "a cleaner's work is dropped, the log has changed");
                return Ok(false);
            }
        }
        Ok(pass.is_complete() && self.cleaned_to(pass.end()).await.is_ok())
    }
}
