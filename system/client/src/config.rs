//! Settings of a client. Everything that waits or grows has its bound here.

use std::time::Duration;

/// Settings shared by the producers, consumers and admin calls of one [`Client`](crate::Client).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Host and port of some brokers; the others are learned.
    pub bootstrap: Vec<(String, u16)>,
    pub client_id: String,
    /// From writing a request to its response; then the connection is closed and the outcome is unknown.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    /// An admin, coordinator or metadata call with all its retries.
    pub api_timeout: Duration,
    /// The first wait between retries; it doubles up to `retry_backoff_max`, with jitter.
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    /// The largest response that is accepted.
    pub max_response_bytes: u32,
    /// Ask the broker to create a topic that metadata is asked for.
    pub allow_auto_topic_creation: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: "streamproof".to_owned(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            max_response_bytes: 100 * 1024 * 1024,
            allow_auto_topic_creation: false,
        }
    }
}

impl ClientConfig {
    pub fn new(bootstrap: Vec<(String, u16)>) -> Self {
        Self { bootstrap, ..Self::default() }
    }
}
