//! What brokers did with the copies of the guilty partition: who led and followed, what was cut, how far the high
//! watermark and the last stable offset rose, what was appended. What is at odds with the copies as they were says so.

use std::collections::{BTreeMap, BTreeSet};

use history::{Batch, Flush, LogEvent, LogSource, Observation, Observed};

use super::clue::{Clue, at};
use super::copies::{Copy, Entry, Held, batch_name, has_sequence, out_of_place};
use super::names::{Names, error_name};
use super::told::{Story, Weight};
use super::{Case, StepKind, transactions};

/// Steps of the partitions that the violation is about; of all, as far as they are odd, if it is about none.
pub(super) fn tell(case: &Case<'_>, names: &Names, clue: &Clue, story: &mut Story) {
    let mut places: Vec<_> = clue.places().into_iter().map(|place| (place, true)).collect();
    if places.is_empty() {
        places = all_places(case).into_iter().map(|place| (place, false)).collect();
    }
    // What becomes of a transaction is in its coordinator's log.
    if let Some(coordinator) = transactions::coordinator(case, clue) {
        places.push((coordinator, false));
    }
    for ((topic, partition), near) in places {
        let mut watch = Watch::new(case, names, clue, &topic, partition);
        watch.near = near;
        for seen in &case.history.observations {
            watch.see(seen, story);
        }
        watch.end(story);
    }
}

fn all_places(case: &Case<'_>) -> Vec<(String, i32)> {
    let mut all: Vec<(String, i32)> = Vec::new();
    for seen in &case.history.observations {
        if let Observed::Log { topic, partition, event: LogEvent::Opened { .. } | LogEvent::Followed { .. } } =
            &seen.what
            && !all.iter().any(|(t, p)| t == topic && p == partition)
        {
            all.push((topic.clone(), *partition));
        }
    }
    all.sort();
    all
}

/// Whom a broker follows.
#[derive(Clone)]
struct Following {
    leader: String,
    epoch: i32,
    /// Since when, and in words.
    since_ns: u64,
    what: String,
    /// It was told that it goes on past where the logs part.
    told: bool,
}

/// What is known of one partition, up to an observation.
struct Watch<'a> {
    case: &'a Case<'a>,
    names: &'a Names,
    topic: &'a str,
    partition: i32,
    /// Of the record that the violation is about, if it is in this partition.
    offset: Option<i64>,
    /// The violation is about this partition.
    near: bool,
    copies: BTreeMap<String, Copy>,
    /// Who leads, its epoch, and where that epoch began.
    leader: Option<(String, i32, i64)>,
    /// The epoch that each broker led last.
    led: BTreeMap<String, i32>,
    /// Whom each broker follows, and in which epoch: an answer of an earlier leader may come late.
    following: BTreeMap<String, Following>,
    /// The in-sync set, as each broker has it, and its partition epoch.
    isr: BTreeMap<String, (i32, Vec<i32>)>,
    /// Members of the largest in-sync set so far.
    replicas: usize,
    /// Brokers that have had nothing of their leader yet since they began to follow, or opened or cut their log.
    to_go_on: BTreeSet<String>,
    high: i64,
    /// Some copy is without records that it had.
    compacted: bool,
    /// The latest partition epoch that was told.
    told_isr: i32,
    /// The last copy of a batch that was told: it may be sent again and again.
    told_copy: Option<(String, i64)>,
}

impl<'a> Watch<'a> {
    fn new(case: &'a Case<'a>, names: &'a Names, clue: &Clue, topic: &'a str, partition: i32) -> Self {
        let offset = clue.record.as_ref().filter(|(t, p, _)| t == topic && *p == partition).map(|(.., o)| *o);
        Self {
            case,
            names,
            topic,
            partition,
            offset,
            near: true,
            copies: BTreeMap::new(),
            compacted: false,
            leader: None,
            led: BTreeMap::new(),
            following: BTreeMap::new(),
            isr: BTreeMap::new(),
            replicas: 1,
            to_go_on: BTreeSet::new(),
            high: 0,
            told_isr: -1,
            told_copy: None,
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    fn is_here(&self, topic: &str, partition: i32) -> bool {
        topic == self.topic && partition == self.partition
    }

    fn tell(&self, story: &mut Story, weight: Weight, at_ns: u64, who: &str, what: String) {
        if self.near {
            story.tell(weight, StepKind::Broker, at_ns, who, what);
        }
    }

    /// A step that breaks a rule, told whether or not it is of the partition that the violation is about.
    fn odd(&self, story: &mut Story, sort: &str, at_ns: u64, who: &str, what: String) {
        let place = if self.near { self.name() } else { "elsewhere".to_owned() };
        story.odd(format!("{sort}, {place}"), StepKind::Broker, at_ns, who, what);
    }

    fn see(&mut self, seen: &Observation, story: &mut Story) {
        let (at_ns, who) = (seen.at_ns, self.names.observer(&seen.observer));
        let is_node = matches!(seen.observer, history::Observer::Node { .. });
        match &seen.what {
            // Told by the broker itself; what others applied of it comes later and says no more.
            Observed::LeaderElected { topic, partition, leader_epoch, broker, log_end: Some(end) }
                if self.is_here(topic, *partition) =>
            {
                let who = format!("broker-{broker}");
                let what = format!("leads {} in epoch {leader_epoch}, log end {end}", self.name());
                if *end < self.high {
                    let what = format!("{what}, though the high watermark was {}", self.high);
                    self.odd(story, "leads below", at_ns, &who, what);
                } else {
                    self.tell(story, Weight::Near, at_ns, &who, what);
                }
                self.led.insert(who.clone(), *leader_epoch);
                self.following.remove(&who);
                self.leader = Some((who, *leader_epoch, *end));
            }
            Observed::IsrChanged { topic, partition, leader_epoch, partition_epoch, isr }
                if self.is_here(topic, *partition) =>
            {
                self.in_sync(&who, *partition_epoch, isr.iter().map(|id| *id as i32).collect());
                // Every broker tells of a committed change, and again as it restarts: once is enough.
                if *partition_epoch > self.told_isr {
                    self.told_isr = *partition_epoch;
                    let what = format!("in-sync set of {} is {isr:?} in epoch {leader_epoch}", self.name());
                    self.tell(story, Weight::Near, at_ns, &who, what);
                }
            }
            Observed::HighWatermark { topic, partition, offset, .. } if is_node && self.is_here(topic, *partition) => {
                self.high_watermark(at_ns, &who, *offset, story);
            }
            Observed::FollowerHighWatermark { topic, partition, offset, .. } if self.is_here(topic, *partition) => {
                let Some(Following { leader, .. }) = self.following.get(&who) else { return };
                let parts = self.copies.get(&who).zip(self.copies.get(leader)).and_then(|(a, b)| a.parts_from(b));
                if let Some(parts) = parts.filter(|parts| parts < offset) {
                    let what = format!(
                        "takes {offset} for the high watermark of {}, though its log parts from that of {leader} at \
                         {parts}",
                        self.name()
                    );
                    self.odd(story, "follower's high watermark", at_ns, &who, what);
                }
            }
            Observed::LastStableOffset { topic, partition, offset, .. }
                if is_node && self.is_here(topic, *partition) =>
            {
                let open = self.copies.get(&who).and_then(Copy::first_open);
                if let Some((from, producer)) = open.filter(|(from, _)| from < offset) {
                    let what = format!(
                        "last stable offset of {} is {offset}, though a transaction of producer {producer} is open \
                         from {from} on",
                        self.name()
                    );
                    self.odd(story, "stable", at_ns, &who, what);
                }
            }
            Observed::Log { topic, partition, event } if self.is_here(topic, *partition) => {
                self.log(at_ns, &who, event, story);
            }
            _ => {}
        }
    }

    fn high_watermark(&mut self, at_ns: u64, who: &str, offset: i64, story: &mut Story) {
        let isr = self.isr.get(who).map(|(_, isr)| isr.clone()).unwrap_or_default();
        let raises = format!("high watermark of {} rises to {offset}", self.name());
        let rises = offset > self.high;
        self.high = self.high.max(offset);
        if !rises {
            return;
        }
        let min = self.min_in_sync();
        if isr.len() < min && !isr.is_empty() {
            let what = format!("{raises}, though the in-sync set is {isr:?} and min.insync.replicas is {min}");
            self.odd(story, "below minimum", at_ns, who, what);
        }
        let fsync = self.case.history.facts.flush == Flush::Fsync;
        for member in isr.iter().map(|id| format!("broker-{id}")) {
            let Some(copy) = self.copies.get(&member) else { continue };
            let parts = self.copies.get(who).and_then(|leader| copy.parts_from(leader));
            if let Some(parts) = parts.filter(|parts| *parts < offset) {
                let what = format!("{raises}, though the log of {member}, in sync, parts from it at {parts}");
                self.odd(story, "parted", at_ns, who, what);
            } else if copy.end < offset {
                let what = format!("{raises}, though the log of {member}, in sync, ends at {}", copy.end);
                self.odd(story, "short", at_ns, who, what);
            } else if fsync && copy.flushed < offset {
                let what = format!("{raises}, though {member}, in sync, has synced {}", copy.flushed);
                self.odd(story, "not synced", at_ns, who, what);
            }
        }
    }

    /// What a member of the in-sync set that a leader asks for lacks: the beginning of the leader's epoch, or, if it is to
    /// join, what is committed.
    fn lacking(&self, who: &str, leader_epoch: i32, isr: &[i32]) -> Option<String> {
        let (_, _, start) = self.leader.as_ref().filter(|(_, epoch, _)| *epoch == leader_epoch)?;
        let high = self.high.min(self.copies.get(who)?.end);
        let members = self.isr.get(who).map_or(&[][..], |(_, isr)| isr);
        isr.iter().find_map(|id| {
            let member = format!("broker-{id}");
            let end = self.copies.get(&member)?.end;
            if end < *start {
                Some(format!("{member} ends at {end} and epoch {leader_epoch} begins at {start}"))
            } else if end < high && !members.contains(id) {
                Some(format!("{member} ends at {end} and the high watermark is {high}"))
            } else {
                None
            }
        })
    }

    /// How a broker has the in-sync set; one that restarts tells of earlier ones again.
    fn in_sync(&mut self, who: &str, partition_epoch: i32, isr: Vec<i32>) {
        self.replicas = self.replicas.max(isr.len());
        let known = self.isr.entry(who.to_owned()).or_insert((-1, Vec::new()));
        if partition_epoch > known.0 {
            *known = (partition_epoch, isr);
        }
    }

    /// Of followers that never came to cut what their leader does not have.
    fn end(&self, story: &mut Story) {
        for (who, Following { leader, since_ns, what, .. }) in self.following.iter().filter(|(_, f)| !f.told) {
            let parts = self.copies.get(who).zip(self.copies.get(leader)).and_then(|(a, b)| a.parts_from(b));
            if let Some(parts) = parts {
                let what = format!("{what}, though its log parts from that of {leader} at {parts}: to the end");
                self.odd(story, "never cut", *since_ns, who, what);
            }
        }
    }

    fn min_in_sync(&self) -> usize {
        let topic = self.case.plan.topics.iter().find(|t| t.name == self.topic);
        let own = topic.and_then(|t| t.configs.get("min.insync.replicas")?.parse().ok());
        let wanted = own.unwrap_or(self.case.plan.knobs.broker.min_insync_replicas as usize);
        wanted.min(topic.map_or(self.replicas, |t| t.replication_factor as usize))
    }

    fn log(&mut self, at_ns: u64, who: &str, event: &LogEvent, story: &mut Story) {
        let name = self.name();
        match event {
            LogEvent::Opened { start, end, first_open, aborted } => {
                self.opened(at_ns, who, (*start, *end), (*first_open, *aborted), story);
            }
            LogEvent::Followed { leader_epoch, leader, end } => {
                let of = leader.map_or("no leader".to_owned(), |id| format!("broker-{id}"));
                self.to_go_on.insert(who.to_owned());
                let what = format!("follows {of} on {name} in epoch {leader_epoch}, log end {end}");
                let following =
                    Following { leader: of, epoch: *leader_epoch, since_ns: at_ns, what: what.clone(), told: false };
                self.following.insert(who.to_owned(), following);
                if self.leader.is_some() && *end > 0 {
                    self.tell(story, Weight::Near, at_ns, who, what);
                }
            }
            LogEvent::Replicated { base, last } => self.replicated(at_ns, who, *base, *last, story),
            LogEvent::Truncated { from, to, high_watermark } => {
                let what = format!("truncates {name} from {from} to {to}, its high watermark {high_watermark}");
                let same = self.same_as_leader(who);
                self.copies.entry(who.to_owned()).or_default().cut(*to);
                self.to_go_on.insert(who.to_owned());
                match same {
                    Some((leader, same)) if *to < same => {
                        let what = format!("{what}, though it is committed and as that of {leader} up to {same}");
                        self.odd(story, "truncates", at_ns, who, what);
                    }
                    _ if from != to => self.tell(story, Weight::Own, at_ns, who, what),
                    _ => {}
                }
            }
            LogEvent::Reset { offset } => {
                self.copies.insert(who.to_owned(), Copy::beginning(*offset));
                self.tell(story, Weight::Own, at_ns, who, format!("begins {name} anew at {offset}"));
            }
            LogEvent::IsrAsked { leader_epoch, isr } => {
                if let Some(lacking) = self.lacking(who, *leader_epoch, isr) {
                    let what = format!("asks for the in-sync set {isr:?} of {name}, though {lacking}");
                    self.odd(story, "joins", at_ns, who, what);
                }
            }
            LogEvent::IsrAnswered { partition_epoch, isr } => self.in_sync(who, *partition_epoch, isr.clone()),
            LogEvent::Appended { base, last, transactional, batch } => {
                self.appended(at_ns, who, (*base, *last), *transactional, batch, story);
            }
            LogEvent::Marker { offset, producer_id, producer_epoch, commit } => {
                let kind = if *commit { "commit" } else { "abort" };
                let what = format!(
                    "writes the {kind} marker of producer {producer_id} epoch {producer_epoch} to {name} at {offset}"
                );
                if self.ends_the_record(who, *producer_id) {
                    self.tell(story, Weight::Own, at_ns, who, what);
                }
                let (producer_id, producer_epoch, commit) = (*producer_id, *producer_epoch, *commit);
                let held = Held::Marker { producer_id, producer_epoch, commit };
                self.push(who, *offset, *offset, held);
            }
            LogEvent::MarkerRefused { error, producer_id, producer_epoch } => {
                let there = self.copies.get(who).and_then(|copy| copy.of_producer(*producer_id).next().copied());
                let there =
                    there.filter(|e| matches!(e.held, Held::Marker { producer_epoch: p, .. } if p == *producer_epoch));
                if let Some(there) = there {
                    let what = format!(
                        "refuses the marker of producer {producer_id} epoch {producer_epoch} on {name}, {}, though \
                         it has it at {}",
                        error_name(*error),
                        there.base
                    );
                    self.odd(story, "marker refused", at_ns, who, what);
                }
            }
            LogEvent::Duplicate { base, last, producer_id } => {
                let there = self.copies.get(who).is_some_and(|c| c.of_producer(*producer_id).any(|e| e.base == *base));
                let again = format!("takes a batch of producer {producer_id} on {name} for a copy of {base} to {last}");
                if !there {
                    let what = format!("{again}, though it appended none there");
                    self.odd(story, "copy of nothing", at_ns, who, what);
                } else if self.offset.is_some_and(|o| (*base..=*last).contains(&o))
                    && self.told_copy.replace((who.to_owned(), *base)) != Some((who.to_owned(), *base))
                {
                    let what = format!("{again}, its high watermark {}", self.high);
                    self.tell(story, Weight::Own, at_ns, who, what);
                }
            }
            LogEvent::Refused { error, batch } => {
                if let Some(there) =
                    self.copies.get(who).and_then(|copy| copy.batch(batch)).filter(|_| has_sequence(batch))
                {
                    let what = format!(
                        "refuses {} on {name}, {}, though it has it at {}",
                        batch_name(batch),
                        error_name(*error),
                        there.base
                    );
                    self.odd(story, "refused", at_ns, who, what);
                }
            }
            LogEvent::Cleaned { base, end } => {
                self.compacted = true;
                self.cleaned(at_ns, who, *base, *end, story);
            }
            LogEvent::Flushed { offset } => {
                let copy = self.copies.entry(who.to_owned()).or_default();
                copy.flushed = copy.flushed.max(*offset);
            }
        }
    }

    fn push(&mut self, who: &str, base: i64, last: i64, held: Held) {
        let leader_epoch = self.led.get(who).copied().unwrap_or(-1);
        self.copies.entry(who.to_owned()).or_default().push(Entry { base, last, leader_epoch, held });
    }

    /// Recovery takes from the disk what it finds of records, and of transactions.
    fn opened(
        &mut self,
        at_ns: u64,
        who: &str,
        (start, end): (i64, i64),
        (first_open, aborted): (Option<i64>, Option<u64>),
        story: &mut Story,
    ) {
        let had = self.copies.get(who).map_or(0, |c| c.end);
        let copy = self.copies.entry(who.to_owned()).or_default();
        copy.cut(end);
        copy.flushed = end;
        let had_aborted = copy.aborted(start);
        let forgot = copy.first_open().filter(|(from, _)| first_open.is_none_or(|known| known > *from));
        self.to_go_on.insert(who.to_owned());
        let mut what = format!("opens {}, log end {end}", self.name());
        if end < had {
            what += &format!(", which was {had} before");
        }
        if let Some((from, producer)) = forgot {
            let knows =
                first_open.map_or("of no open transaction".to_owned(), |known| format!("of one from {known} on"));
            what += &format!(", and knows {knows}, though a transaction of producer {producer} is open from {from} on");
            self.odd(story, "forgets", at_ns, who, what);
        } else if let Some(knows) = aborted.filter(|knows| *knows < had_aborted && !self.compacted) {
            what += &format!(", and knows of {knows} aborted transactions, though {had_aborted} are in it");
            self.odd(story, "forgets", at_ns, who, what);
        } else if had > 0 {
            let weight = if end < had { Weight::Own } else { Weight::Near };
            self.tell(story, weight, at_ns, who, what);
        }
    }

    /// The leader that a broker follows, or the last there was, and how far both have the same that is committed.
    fn same_as_leader(&self, who: &str) -> Option<(String, i64)> {
        let followed = self.following.get(who).map(|f| &f.leader).filter(|leader| self.copies.contains_key(*leader));
        let leader = followed.or(self.leader.as_ref().map(|(leader, ..)| leader)).filter(|leader| *leader != who)?;
        let (mine, theirs) = (self.copies.get(who)?, self.copies.get(leader)?);
        let same = mine.parts_from(theirs).unwrap_or(mine.end.min(theirs.end));
        Some((leader.clone(), same.min(self.high)))
    }

    /// A follower has something of its leader's. The first time since it began says how far it believes its own log.
    fn replicated(&mut self, at_ns: u64, who: &str, base: i64, last: i64, story: &mut Story) {
        let following = self.following.get(who);
        let leader = following.and_then(|f| self.copies.get(&f.leader)).cloned();
        if self.to_go_on.remove(who)
            && let Some(Following { leader: leader_name, epoch, .. }) = following.cloned()
        {
            let what = format!("goes on with {} from {base} on in epoch {epoch}", self.name());
            let parts = self.copies.get(who).zip(leader.as_ref()).and_then(|(mine, theirs)| mine.parts_from(theirs));
            match parts.filter(|parts| *parts < base) {
                Some(parts) => {
                    let what = format!("{what}, though its log parts from that of {leader_name} at {parts}");
                    self.odd(story, "goes on", at_ns, who, what);
                    if let Some(following) = self.following.get_mut(who) {
                        following.told = true;
                    }
                }
                None if base > 0 => self.tell(story, Weight::Near, at_ns, who, what),
                None => {}
            }
        }
        self.copies.entry(who.to_owned()).or_default().take(leader.as_ref(), base, last);
    }

    fn appended(
        &mut self,
        at_ns: u64,
        who: &str,
        (base, last): (i64, i64),
        transactional: bool,
        batch: &Batch,
        story: &mut Story,
    ) {
        let place = if base == last { format!("at {base}") } else { format!("at {base} to {last}") };
        let what = format!("appends {} to {} {place}", batch_name(batch), self.name());
        let copy = self.copies.entry(who.to_owned()).or_default();
        let though = if has_sequence(batch) { out_of_place(copy, batch) } else { None };
        match though {
            Some((sort, though)) => self.odd(story, sort, at_ns, who, format!("{what}, though {though}")),
            None if self.offset.is_some_and(|o| (base..=last).contains(&o)) => {
                self.tell(story, Weight::Own, at_ns, who, what);
            }
            None => {}
        }
        self.push(who, base, last, Held::Batch { transactional, batch: *batch });
    }

    /// Whether a marker of this producer would be the first one after the record.
    fn ends_the_record(&self, who: &str, producer_id: i64) -> bool {
        let (Some(offset), Some(copy)) = (self.offset, self.copies.get(who)) else { return false };
        let before = copy.of_producer(producer_id).take_while(|e| matches!(e.held, Held::Batch { .. }));
        before.into_iter().any(|e| (e.base..=e.last).contains(&offset))
    }

    fn cleaned(&mut self, at_ns: u64, who: &str, base: i64, end: i64, story: &mut Story) {
        let what = format!("compacts {} from {base} to {end}", self.name());
        let log = self.case.history.log(&LogSource::ReadUncommitted, self.topic, self.partition);
        let gone = log.zip(self.copies.get(who)).and_then(|(log, copy)| {
            copy.markers(base, end).into_iter().find(|(offset, producer, since)| {
                let of_it = |r: &&history::LogRecord| r.producer_id == *producer && r.transactional;
                let stays = log.records.iter().any(|r| of_it(&r) && r.offset > *since && r.offset < *offset);
                *offset >= log.log_start_offset && stays && at(log, *offset).is_none()
            })
        });
        match gone {
            Some((offset, producer, _)) => {
                let what = format!(
                    "{what}, and the marker of producer {producer} at {offset} is gone, though records of its \
                     transaction stay"
                );
                self.odd(story, "marker cleaned", at_ns, who, what);
            }
            None => self.tell(story, Weight::Far, at_ns, who, what),
        }
    }
}

#[cfg(test)]
mod tests;
