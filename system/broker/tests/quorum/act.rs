//! A machine's actions, done to its node's disk and the network.

use super::*;

impl World {
    pub(crate) fn act(&mut self, id: i32, action: Action) {
        let node = self.nodes.get_mut(&id).expect("a node");
        match action {
            Action::Store(state) => {
                if let Some(old) = node.disk.state {
                    assert!(old.epoch <= state.epoch, "node {id} went back from {old:?} to {state:?}");
                }
                if let Some(voted) = state.voted {
                    let other = self.votes.insert((state.epoch, id), voted.id);
                    assert!(other.is_none_or(|o| o == voted.id), "node {id} voted twice in {}", state.epoch);
                }
                node.disk.state = Some(state);
            }
            Action::AppendLeaderChange { base, epoch, granting } => {
                assert!(granting.len() > self.voters.len() / 2, "elected by {granting:?}");
                let other = self.leaders.insert(epoch, id);
                assert!(other.is_none(), "epoch {epoch} is led by {id} and {other:?}");
                self.next_value += 1;
                let value = self.next_value;
                node.disk.log.push(Entry { batch: Batch { base, next: base + 1, epoch }, value });
                self.is_complete(id, epoch);
            }
            Action::Append { base, epoch, batch } => {
                let value = u64::from_be_bytes(batch[..].try_into().expect("8 bytes"));
                let next = node.machine.as_ref().expect("it is up").log().end_offset();
                node.disk.log.push(Entry { batch: Batch { base, next, epoch }, value });
            }
            Action::AppendFetched(batches) => {
                for (batch, value) in batches.headers.iter().zip(batches.bytes.chunks(8)) {
                    let value = u64::from_be_bytes(value.try_into().expect("8 bytes"));
                    node.disk.log.push(Entry { batch: *batch, value });
                }
            }
            Action::Truncate { offset } => {
                self.cuts += 1;
                node.disk.log.truncate(offset);
            }
            Action::Flush => {
                let end = node.disk.log.end();
                let slow = !self.healed && self.rng.chance(1, 5);
                if slow {
                    let at = self.after(1, 2500);
                    let node = self.nodes.get_mut(&id).expect("a node");
                    node.stalled_until = at + Duration::from_nanos(1);
                    let incarnation = node.incarnation;
                    self.push(at, Event::Flushed { node: id, incarnation, end });
                } else {
                    self.flushed(id, end);
                }
            }
            Action::Send { to, id: request_id, request } => {
                let incarnation = node.incarnation;
                let lost = self.now + CALL;
                self.push(lost, Event::Lost { node: id, incarnation, to, id: request_id });
                let event = Event::Request { from: id, incarnation, to, id: request_id, request };
                self.carry(event);
            }
            Action::Reply { token, answer } => self.reply(id, token, answer),
            Action::Serve { token, header, high_watermark, from, upper } => {
                let log = &node.disk.log;
                let all = log.entries.iter().filter(|e| e.batch.next > from && e.batch.next <= upper);
                let entries: Vec<Entry> = all.take(4).copied().collect();
                assert!(!entries.is_empty(), "a fetch that is served gets something");
                let mut bytes = Vec::new();
                entries.iter().for_each(|e| bytes.extend_from_slice(&e.value.to_be_bytes()));
                let headers = entries.iter().map(|e| e.batch).collect();
                let fetched = Fetched::Batches(Batches { headers, bytes: bytes.into() });
                self.reply(id, token, Answer::Fetch { header, high_watermark, fetched });
            }
            Action::Committed { high_watermark } => {
                assert!(node.high_watermark <= high_watermark, "high watermark of {id} went back");
                let held = node.disk.snapshot.as_ref().map_or(0, |s| s.at.offset);
                let from = node.high_watermark.max(held.min(high_watermark));
                let end =
                    node.disk.log.entries[..node.disk.log.synced].last().map_or(node.disk.log.start, |e| e.batch.next);
                assert!(high_watermark <= end, "node {id} calls {high_watermark} committed, it has {end} durably");
                node.high_watermark = high_watermark;
                let log = node.disk.log.entries.iter();
                let new: Vec<Entry> =
                    log.filter(|e| e.batch.base >= from && e.batch.next <= high_watermark).copied().collect();
                let reached = new.last().map_or(from, |e| e.batch.next);
                assert_eq!(reached, high_watermark, "node {id}: a high watermark between batches");
                new.into_iter().for_each(|e| self.commit(id, e));
            }
            Action::LeaderChanged { .. } => {}
            Action::FetchSnapshot { leader, at, .. } => {
                let incarnation = node.incarnation;
                let when = self.after(1, 800);
                self.push(when, Event::SnapshotArrives { node: id, incarnation, leader, at });
            }
            Action::InstallSnapshot { at } => {
                let snapshot = node.fetched.take().expect("the snapshot that arrived");
                assert_eq!(snapshot.at, at);
                node.disk.log = Log { start: at.offset, ..Log::default() };
                let entries = snapshot.entries.clone();
                node.disk.snapshot = Some(snapshot);
                self.snapshots_taken_over += 1;
                assert_eq!(self.committed[..entries.len()], entries[..], "a snapshot of what is committed");
            }
        }
    }

    pub(crate) fn flushed(&mut self, id: i32, end: i64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.disk.log.synced = node.disk.log.entries.iter().filter(|e| e.batch.next <= end).count();
        node.stalled_until = node.stalled_until.min(self.now);
        self.feed(id, Input::Flushed { end });
    }
}
