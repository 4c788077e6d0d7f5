//! What goes wrong, and how all of it ends.

use super::*;

impl World {
    pub(crate) fn crash(&mut self, id: i32, wipe: bool) {
        let again = if self.healed { self.after(1, 100) } else { self.after(10, 6000) };
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.machine.take().is_none() && !wipe {
            return;
        }
        if wipe {
            self.wipes += 1;
            self.next_directory += 1;
            node.disk = Disk { directory: self.next_directory, ..Disk::default() };
            node.high_watermark = 0;
        } else {
            let log = &mut node.disk.log;
            let kept = self.rng.range(log.synced as u64, log.entries.len() as u64);
            log.entries.truncate(kept as usize);
        }
        self.push(again, Event::Restart { node: id });
    }

    pub(crate) fn nemesis(&mut self) {
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        let id = *self.rng.choose(&ids);
        match self.rng.range(0, 13) {
            0..2 => self.crash(id, false),
            2 => {
                // A quorum bears the loss of a minority of its disks at a time.
                let without =
                    |n: &&Node| self.voters.contains(&n.id) && (n.id == id || !n.disk.state.is_some_and(|s| s.voting));
                let lost = self.nodes.values().filter(without).count();
                if self.voters.len() == 1 && id == 1 {
                    // Its only disk: nobody would remember.
                } else if !self.voters.contains(&id) || lost <= (self.voters.len() - 1) / 2 {
                    self.crash(id, true);
                }
            }
            3 => {
                for other in ids {
                    self.cut.insert((id, other));
                    if self.rng.chance(1, 2) {
                        self.cut.insert((other, id));
                    }
                }
            }
            4 => {
                let other = *self.rng.choose(&ids);
                self.cut.insert((id, other));
            }
            5 => {
                let side: BTreeSet<i32> = ids.iter().copied().filter(|_| self.rng.chance(1, 2)).collect();
                for a in &ids {
                    for b in ids.iter().filter(|b| side.contains(a) != side.contains(b)) {
                        self.cut.insert((*a, *b));
                    }
                }
            }
            6..9 => self.cut.clear(),
            9 => self.feed_unless_stalled(id, Input::Resign),
            10..13 => self.snapshot(id),
            _ => {
                let leader =
                    self.nodes.values().find(|n| n.machine.as_ref().is_some_and(|m| m.role() == RoleName::Leader));
                if let Some(id) = leader.map(|n| n.id) {
                    self.crash(id, false);
                }
            }
        }
        self.logs_match();
        let at = self.after(100, 3000);
        self.push(at, Event::Nemesis);
    }

    pub(crate) fn feed_unless_stalled(&mut self, id: i32, input: Input) {
        if self.stalled(id).is_none() {
            self.feed(id, input);
        }
    }

    /// The node takes a snapshot of what it knows to be committed, and may cut its log.
    pub(crate) fn snapshot(&mut self, id: i32) {
        if self.stalled(id).is_some() {
            return;
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(machine) = &node.machine else { return };
        let at = Position { offset: node.high_watermark, epoch: machine.log().epoch_below(node.high_watermark) };
        if node.disk.snapshot.as_ref().map_or(0, |s| s.at.offset) >= at.offset {
            return;
        }
        let entries: Vec<Entry> = self.committed.iter().take_while(|e| e.batch.next <= at.offset).copied().collect();
        node.disk.snapshot = Some(Snapshot { at, entries });
        self.feed(id, Input::Snapshotted { at });
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.machine.is_none() || self.rng.chance(1, 3) {
            return;
        }
        let log = &mut node.disk.log;
        let whole = log.entries[..log.synced].iter().filter(|e| e.batch.next <= at.offset).count();
        let gone = self.rng.range(0, whole as u64) as usize;
        if let Some(last) = gone.checked_sub(1) {
            log.start = log.entries[last].batch.next;
            log.entries.drain(..gone);
            log.synced -= gone;
            let start = log.start;
            self.feed(id, Input::Prefix { start });
        }
    }

    /// Everything works again; whoever is down comes up.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
        self.queue.retain(|_, e| !matches!(e, Event::Nemesis | Event::Restart { .. }));
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.start(id));
    }
}
