//! What a partition's leader decides: in which order appends go to the log, when to flush, when to acknowledge, what
//! readers may see. Pure: inputs in, actions out; the driver executes them and feeds back what came of them.
//!
//! ```text
//! Append ──▶ queue ──▶ [Append] ──▶ log end ──▶ [Flush] ──▶ flushed ──▶ min over ISR = high watermark ──▶ [Publish], [Reply]
//! ```
//!
//! - One append is at the log at a time, in the order of the queue. A flush runs beside it (group commit): what is
//!   appended meanwhile goes with the next one.
//! - A member of the in-sync set counts with what it would still have after its worst crash: its flushed offset under
//!   `flush=fsync`, its log end under the page cache.
//! - acks=all waits for the high watermark, a duplicate's too: its first copy may still be lost (Redpanda 4576093165).
//! - The last stable offset is the exclusive bound of what read_committed sees. A transaction counts as open until its
//!   *marker* is below the high watermark: else a crash could take back a marker that readers had seen the effect of.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use log::{Marker, Offset, Origin, TxnChange};
use protocol::ErrorCode;
use protocol::batch::BatchHeader;

use super::{Acks, Appended};
use crate::config::Flush;

/// Names an append from its arrival to its reply.
pub type Token = u64;

/// Appends after which a flush is due even if more are queued.
const FLUSH_AFTER: usize = 64;

/// Something to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Data { header: BatchHeader, records: Bytes, origin: Origin },
    Marker(Marker),
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Data { records, .. } => records.len(),
            Work::Marker(_) => 128,
        }
    }
}

/// What came of an [`Action::Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done {
        first: Offset,
        last: Offset,
        transactions: Vec<TxnChange>,
    },
    /// In the log already, at these offsets.
    Duplicate {
        first: Offset,
        last: Offset,
    },
    /// The marker is in the log already.
    MarkerThere,
    /// Certainly not appended.
    Refused(ErrorCode),
    /// The log is not usable any more; whether it was appended is unknown.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Append {
        token: Token,
        work: Work,
        acks: Acks,
    },
    Appended {
        token: Token,
        outcome: Outcome,
    },
    /// A flush ended: everything below is durable here.
    Flushed(Offset),
    FlushFailed,
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append it and answer with [`Input::Appended`]. No other is given before that.
    Append {
        token: Token,
        work: Work,
    },
    /// Begin to sync; answer with [`Input::Flushed`] or [`Input::FlushFailed`]. No other is given before that.
    Flush,
    /// Let readers see these bounds. Always before the replies that they allow.
    Publish {
        high_watermark: Offset,
        last_stable_offset: Offset,
    },
    Reply {
        token: Token,
        result: Result<Appended, ErrorCode>,
    },
    /// The log failed: tell the broker.
    Fail,
    /// All is done and durable; nothing will follow.
    Closed,
}

/// Where an in-sync replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    end: Offset,
    flushed: Offset,
}

/// The state of the log that a machine starts from: as recovered, so all of it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub log_start: Offset,
    pub end: Offset,
    /// First offsets of open transactions.
    pub open: Vec<Offset>,
}

/// One partition, led here.
#[derive(Clone, Debug)]
pub struct Machine {
    node: i32,
    flush: Flush,
    log_start: Offset,
    queue: VecDeque<(Token, Work, Acks)>,
    queued_bytes: usize,
    max_queued_bytes: usize,
    appending: Option<(Token, Acks)>,
    /// Appends since the last flush began.
    unflushed: usize,
    flushing: bool,
    /// By node id, this one included.
    in_sync: BTreeMap<i32, Member>,
    high_watermark: Offset,
    last_stable: Offset,
    /// First offset of each transaction that is open, or whose marker is not below the high watermark.
    transactions: BTreeMap<Offset, Option<Offset>>,
    /// Acknowledgements by the high watermark they wait for.
    waiting: BTreeMap<(Offset, Token), Appended>,
    closing: bool,
    /// Closed or failed.
    stopped: bool,
    closed: bool,
}

impl Machine {
    pub fn new(node: i32, flush: Flush, max_queued_bytes: usize, start: Start) -> Self {
        let me = Member { end: start.end, flushed: start.end };
        let transactions: BTreeMap<_, _> = start.open.into_iter().map(|first| (first, None)).collect();
        let last_stable = transactions.keys().next().copied().unwrap_or(start.end);
        Self {
            node,
            flush,
            log_start: start.log_start,
            queue: VecDeque::new(),
            queued_bytes: 0,
            max_queued_bytes,
            appending: None,
            unflushed: 0,
            flushing: false,
            in_sync: BTreeMap::from([(node, me)]),
            high_watermark: start.end,
            last_stable,
            transactions,
            waiting: BTreeMap::new(),
            closing: false,
            stopped: false,
            closed: false,
        }
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn last_stable_offset(&self) -> Offset {
        self.last_stable
    }

    pub fn log_end_offset(&self) -> Offset {
        self.me().end
    }

    pub fn handle(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Append { token, work, acks } => self.arrived(token, work, acks, &mut actions),
            Input::Appended { token, outcome } => self.appended(token, outcome, &mut actions),
            Input::Flushed(offset) => {
                assert!(self.flushing, "a flush ended that was not begun");
                self.flushing = false;
                let me = self.me_mut();
                assert!(offset <= me.end, "flushed to {offset}, past the log end {}", me.end);
                me.flushed = me.flushed.max(offset);
                self.advance(&mut actions);
            }
            Input::FlushFailed => {
                self.flushing = false;
                self.fail(&mut actions);
            }
            Input::Close => self.closing = true,
        }
        self.proceed(&mut actions);
        self.check();
        actions
    }

    fn arrived(&mut self, token: Token, work: Work, acks: Acks, actions: &mut Vec<Action>) {
        let refusal = if self.closing {
            Some(ErrorCode::LEADER_NOT_AVAILABLE)
        } else if self.stopped {
            Some(ErrorCode::KAFKA_STORAGE_ERROR)
        } else if self.queued_bytes + work.bytes() > self.max_queued_bytes && !self.queue.is_empty() {
            env::sometimes!(true, "partition: append queue is full");
            Some(ErrorCode::NOT_ENOUGH_REPLICAS)
        } else {
            None
        };
        match refusal {
            Some(error) => actions.push(Action::Reply { token, result: Err(error) }),
            None => {
                self.queued_bytes += work.bytes();
                self.queue.push_back((token, work, acks));
            }
        }
    }

    fn appended(&mut self, token: Token, outcome: Outcome, actions: &mut Vec<Action>) {
        let Some((expected, acks)) = self.appending.take() else { unreachable!("an append ended that was not begun") };
        assert!(expected == token, "append {token} ended, {expected} was begun");
        if self.stopped {
            // A flush failed meanwhile: whether this append can ever become durable is not known.
            actions.push(Action::Reply { token, result: Err(ErrorCode::KAFKA_STORAGE_ERROR) });
            return;
        }
        let (first, last) = match outcome {
            Outcome::Done { first, last, transactions } => {
                assert!(first == self.me().end, "appended at {first}, the log ended at {}", self.me().end);
                self.me_mut().end = last + 1;
                self.unflushed += 1;
                for change in transactions {
                    match change {
                        TxnChange::Began { first, .. } => self.transactions.insert(first, None),
                        TxnChange::Ended { first, marker, .. } => self.transactions.insert(first, Some(marker)),
                    };
                }
                (first, last)
            }
            Outcome::Duplicate { first, last } => {
                env::sometimes!(last >= self.high_watermark, "partition: duplicate of a batch that is not yet stable");
                (first, last)
            }
            Outcome::MarkerThere => (self.me().end, self.me().end - 1),
            Outcome::Refused(error) => {
                actions.push(Action::Reply { token, result: Err(error) });
                return;
            }
            Outcome::Failed => {
                actions.push(Action::Reply { token, result: Err(ErrorCode::KAFKA_STORAGE_ERROR) });
                self.fail(actions);
                return;
            }
        };
        let done = Appended {
            base_offset: first,
            last_offset: last,
            log_append_time_ms: -1,
            log_start_offset: self.log_start,
        };
        match acks {
            Acks::All => {
                self.waiting.insert((last + 1, token), done);
            }
            Acks::None | Acks::Leader => actions.push(Action::Reply { token, result: Ok(done) }),
        }
        self.advance(actions);
    }

    /// Moves the bounds and answers what waited for them.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        let flush = self.flush;
        let secured = |m: &Member| match flush {
            Flush::Fsync => m.flushed,
            Flush::PageCache => m.end,
        };
        // An empty in-sync set does not move anything.
        let secured = self.in_sync.values().map(secured).min().unwrap_or(self.high_watermark);
        let before = (self.high_watermark, self.last_stable);
        self.high_watermark = self.high_watermark.max(secured);
        let high_watermark = self.high_watermark;
        self.transactions.retain(|_, marker| marker.is_none_or(|m| m >= high_watermark));
        let first_unstable = self.transactions.keys().next().copied().unwrap_or(Offset::MAX);
        env::sometimes!(first_unstable < high_watermark, "partition: a transaction holds back the last stable offset");
        self.last_stable = first_unstable.min(high_watermark);
        if before != (self.high_watermark, self.last_stable) {
            actions.push(Action::Publish { high_watermark, last_stable_offset: self.last_stable });
        }
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= high_watermark
        {
            let ((_, token), done) = entry.remove_entry();
            actions.push(Action::Reply { token, result: Ok(done) });
        }
        assert!(self.last_stable >= before.1, "last stable offset went back from {} to {}", before.1, self.last_stable);
    }

    /// Gives the log what it can do next.
    fn proceed(&mut self, actions: &mut Vec<Action>) {
        if self.stopped {
            if self.closing && !self.closed && self.appending.is_none() {
                self.closed = true;
                actions.push(Action::Closed);
            }
            return;
        }
        if self.appending.is_none()
            && let Some((token, work, acks)) = self.queue.pop_front()
        {
            self.queued_bytes -= work.bytes();
            self.appending = Some((token, acks));
            actions.push(Action::Append { token, work });
        }
        let dirty = self.me().flushed < self.me().end;
        // With more appends at hand the flush waits for them, up to a bound: one sync for all.
        let idle = self.appending.is_none() && self.queue.is_empty();
        let wanted = self.flush == Flush::Fsync || self.closing;
        if dirty && wanted && !self.flushing && (idle || self.unflushed >= FLUSH_AFTER) {
            self.flushing = true;
            self.unflushed = 0;
            actions.push(Action::Flush);
        }
        if self.closing && idle && !dirty && !self.flushing {
            self.stopped = true;
            self.closed = true;
            actions.push(Action::Closed);
        }
    }

    /// Nobody knows what is on the disk: nothing is acknowledged any more, and nobody is left without an answer.
    fn fail(&mut self, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        let waiting = std::mem::take(&mut self.waiting).into_keys().map(|(_, token)| token);
        let queued = std::mem::take(&mut self.queue).into_iter().map(|(token, ..)| token);
        let result = Err(ErrorCode::KAFKA_STORAGE_ERROR);
        // The one at the log is answered when it ends.
        actions.extend(waiting.chain(queued).map(|token| Action::Reply { token, result }));
        actions.push(Action::Fail);
    }

    fn me(&self) -> &Member {
        let Some(me) = self.in_sync.get(&self.node) else { unreachable!("the leader is in its own in-sync set") };
        me
    }

    fn me_mut(&mut self) -> &mut Member {
        let Some(me) = self.in_sync.get_mut(&self.node) else { unreachable!("the leader is in its own in-sync set") };
        me
    }

    fn check(&self) {
        let end = self.me().end;
        assert!(self.high_watermark <= end, "high watermark {} past log end {end}", self.high_watermark);
        assert!(
            self.last_stable <= self.high_watermark,
            "last stable offset {} past high watermark {}",
            self.last_stable,
            self.high_watermark
        );
    }
}
