//! Whether the end that a fetch found is the end of what is readable (rule 5).
//!
//! A new leader's high watermark may be older than its predecessor's (KIP-207): for a moment, or for as long as its
//! followers are away, it answers "nothing more" where there was more:
//!   1. Leader 1 shows records up to 310; followers know that up to 303.
//!   2. It dies, 2 leads. Until a follower has fetched from it, its high watermark is 303.
//!   3. A reader at 303 is told that this is the end, for `idle_after`, and the split counts as idle with readable records.
//!
//! ListOffsets says so instead, so it is asked once in each leader epoch before an end in it is believed.

use std::collections::{BTreeMap, BTreeSet};

use client::{Admin, Client, FetchResult, Isolation, OffsetSpec, TopicPartition};
use env::clock::Instant;
use env::sync::mpsc;

pub(super) struct Ends {
    client: Client,
    /// By partition the last leader epoch whose high watermark is known to be up to date, and since when.
    known: BTreeMap<TopicPartition, (i32, Instant)>,
    asking: BTreeSet<TopicPartition>,
    answers_to: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

/// A partition, and the leader epoch that was found to be up to date.
type Answer = (TopicPartition, Option<(i32, Instant)>);

impl Ends {
    pub fn new(client: Client) -> Self {
        let (answers_to, answers) = mpsc::unbounded_channel();
        Self { client, known: BTreeMap::new(), asking: BTreeSet::new(), answers_to, answers }
    }

    /// Takes the epoch from an answer whose end cannot be believed yet, and asks.
    pub fn check(&mut self, result: &mut FetchResult) {
        while let Ok((tp, epoch)) = self.answers.try_recv() {
            self.asking.remove(&tp);
            if let Some(known) = epoch {
                self.known.insert(tp, known);
            }
        }
        let Some(epoch) = result.answered_in.filter(|_| result.records.is_empty()) else { return };
        let known = self.known.get(&result.partition).filter(|(of, _)| *of == epoch).map(|(_, since)| *since);
        // What was asked before may have been answered before.
        if known.is_some_and(|since| since <= result.sent_at) {
            return;
        }
        result.answered_in = None;
        if known.is_none() && self.asking.insert(result.partition.clone()) {
            let (client, tp, answers) = (self.client.clone(), result.partition.clone(), self.answers_to.clone());
            env::task::spawn(async move {
                let leads = |client: &Client| client.metadata().leader(&tp).is_some_and(|l| l.epoch == epoch);
                let asked = leads(&client);
                let admin = Admin::new(client.clone());
                let found =
                    admin.list_offsets(std::slice::from_ref(&tp), OffsetSpec::Latest, Isolation::ReadUncommitted);
                let found = found.await.is_ok_and(|offsets| offsets.contains_key(&tp));
                // An epoch never comes back: it was this leader that answered.
                let up_to_date = (found && asked && leads(&client)).then(|| (epoch, env::clock::now()));
                tracing::debug!(split = %tp, epoch, found, asked, up_to_date = up_to_date.is_some(), "high watermark");
                let _ = answers.send((tp, up_to_date));
            });
        }
    }
}
