//! What may be set about a log.

/// Knobs of one log. The defaults are Kafka's where Kafka has the knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment rolls before it would grow past this many bytes (`segment.bytes`). At most 2^31 - 1.
    pub segment_bytes: u32,
    /// A segment rolls when it was first appended to this many milliseconds ago on the node's monotonic clock
    /// (`segment.ms`).
    pub segment_ms: u64,
    /// Bytes of batches between two entries of the offset index (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// A producer that neither wrote for this many milliseconds of the node's monotonic clock nor has a transaction
    /// open is forgotten (`producer.id.expiration.ms`). Measured from the last append or restart.
    pub producer_expiry_ms: u64,
    /// The page checksums are synced each time this many more pages are sealed. After a power loss the pages sealed
    /// since then are judged by the CRC of their batches.
    pub checksum_sync_pages: u32,
    /// The newest batches are kept in memory up to this many bytes, so that readers at the tail need no disk.
    pub tail_cache_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            index_interval_bytes: 4096,
            producer_expiry_ms: 24 * 3600 * 1000,
            checksum_sync_pages: 256,
            tail_cache_bytes: 1 << 20,
        }
    }
}
