//! The at-least-once writer: rows are visible at once and acknowledged before the checkpoint is; a restart repeats the
//! rows of the epochs it replays.

use std::time::Duration;

use client::{Client, Producer, ProducerConfig};

use crate::outbox::Outbox;
use crate::router::Router;
use crate::writer::{Pending, Prepared, SinkRecord, SinkWriter};

pub struct AtLeastOnce {
    client: Client,
    topics: Vec<String>,
    producer: Producer,
    router: Router,
    outbox: Outbox,
}

impl AtLeastOnce {
    pub fn new(client: Client, topics: Vec<String>, delivery_timeout: Duration) -> Self {
        let config = ProducerConfig { delivery_timeout, ..ProducerConfig::default() };
        let producer = Producer::new(client.clone(), config);
        Self { client, topics, producer, router: Router::default(), outbox: Outbox::default() }
    }
}

impl SinkWriter for AtLeastOnce {
    fn recover(&mut self, _restored: Option<Prepared>) -> Pending<'_, ()> {
        Box::pin(async move {
            self.router = Router::discover(&self.client, &self.topics).await?;
            Ok(())
        })
    }

    fn begin(&mut self, _n: u64) -> Pending<'_, (i64, i16)> {
        Box::pin(async { Ok((-1, -1)) })
    }

    fn write<'a>(&'a mut self, topic: &'a str, record: SinkRecord) -> Pending<'a, ()> {
        Box::pin(self.outbox.send(&self.producer, &mut self.router, topic, record))
    }

    fn pre_commit(&mut self, _n: u64) -> Pending<'_, Option<Prepared>> {
        Box::pin(async move {
            self.producer.flush().await;
            self.outbox.settle().await?;
            Ok(None)
        })
    }

    fn commit(&mut self, _n: u64) -> Pending<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}
