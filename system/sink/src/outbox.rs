//! Records sent and not yet known to be acknowledged. Every delivery is looked at: an error that nobody reads would let
//! the next checkpoint succeed without its rows (FLINK-35749).

use std::collections::VecDeque;

use client::{Delivery, Producer, Record};

use crate::router::Router;
use crate::writer::{SinkError, SinkRecord};

/// More unacknowledged records than this make `send` wait for the oldest.
const MAX_UNACKNOWLEDGED: usize = 4096;

#[derive(Default)]
pub(crate) struct Outbox {
    deliveries: VecDeque<Delivery>,
}

impl Outbox {
    pub async fn send(
        &mut self,
        producer: &Producer,
        router: &mut Router,
        topic: &str,
        record: SinkRecord,
    ) -> Result<(), SinkError> {
        let partition = router.partition(topic, record.key.as_ref())?;
        while self.deliveries.len() >= MAX_UNACKNOWLEDGED {
            self.settle_oldest().await?;
        }
        let record = Record {
            timestamp: env::clock::wall_ms(),
            key: record.key,
            value: record.value,
            headers: record.headers,
            ..Record::default()
        };
        self.deliveries.push_back(producer.send(topic, partition, record).await);
        Ok(())
    }

    /// Every record is acknowledged.
    pub async fn settle(&mut self) -> Result<(), SinkError> {
        while !self.deliveries.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), SinkError> {
        // Left at the front while it is awaited: dropping this future loses nothing.
        if let Some(oldest) = self.deliveries.front_mut() {
            let result = oldest.await;
            self.deliveries.pop_front();
            result.map_err(|e| SinkError::new("deliver a record", e))?;
        }
        Ok(())
    }
}
