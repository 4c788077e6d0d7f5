//! Requests by API, and the errors they were answered with (`kafka.network:type=RequestMetrics`).
//!
//! An answer about several topics or partitions counts each of its errors. APIs and codes are those of the protocol, so
//! there is a bounded number of series.

use std::cell::RefCell;
use std::collections::BTreeMap;

use metrics::Snapshot;
use protocol::{ApiKey, ErrorCode, ResponseBody};

#[derive(Debug, Default)]
pub(crate) struct Requests {
    by_api: RefCell<BTreeMap<i16, Api>>,
}

#[derive(Debug)]
struct Api {
    key: ApiKey,
    requests: u64,
    response_bytes: u64,
    errors: BTreeMap<ErrorCode, u64>,
}

impl Requests {
    fn with(&self, key: ApiKey, f: impl FnOnce(&mut Api)) {
        let empty = || Api { key, requests: 0, response_bytes: 0, errors: BTreeMap::new() };
        f(self.by_api.borrow_mut().entry(key as i16).or_insert_with(empty));
    }

    pub fn came(&self, key: ApiKey) {
        self.with(key, |api| api.requests = api.requests.wrapping_add(1));
    }

    pub fn answered(&self, body: &ResponseBody, bytes: usize) {
        self.with(body.api_key(), |api| {
            api.response_bytes = api.response_bytes.wrapping_add(bytes as u64);
            error_codes(body, &mut |code| {
                if code != 0 {
                    *api.errors.entry(ErrorCode::from_code(code)).or_default() += 1;
                }
            });
        });
    }

    pub fn measure(&self, out: &mut Snapshot) {
        for api in self.by_api.borrow().values() {
            let name = format!("{:?}", api.key);
            let request: (&'static str, &dyn std::fmt::Display) = ("request", &name);
            for (family, help, value) in [
                ("kafka_network_requestmetrics_requests_total", "Requests by API", api.requests),
                ("kafka_network_requestmetrics_responsebytes_total", "Bytes of answers", api.response_bytes),
            ] {
                out.counter(family, help, &[request], value);
            }
            for (code, count) in &api.errors {
                let family = "kafka_network_requestmetrics_errors_total";
                let code = code.name().map_or_else(|| code.code().to_string(), str::to_owned);
                out.counter(family, "Errors in answers, by API and code", &[request, ("error", &code)], *count);
            }
        }
    }
}

/// Every error code of an answer that this broker gives.
fn error_codes(body: &ResponseBody, each: &mut dyn FnMut(i16)) {
    use ResponseBody as R;
    match body {
        R::Produce(r) => r.responses.iter().flat_map(|t| &t.partition_responses).for_each(|p| each(p.error_code)),
        R::Fetch(r) => {
            each(r.error_code);
            r.responses.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::DeleteRecords(r) => r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code)),
        R::ListOffsets(r) => r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code)),
        R::Metadata(r) => r.topics.iter().for_each(|t| each(t.error_code)),
        R::OffsetCommit(r) => r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code)),
        R::TxnOffsetCommit(r) => r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code)),
        R::OffsetFetch(r) => {
            each(r.error_code);
            r.groups.iter().for_each(|g| each(g.error_code));
        }
        R::OffsetForLeaderEpoch(r) => r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code)),
        R::FindCoordinator(r) => {
            each(r.error_code);
            r.coordinators.iter().for_each(|c| each(c.error_code));
        }
        R::AddPartitionsToTxn(r) => {
            each(r.error_code);
            let by_transaction = r.results_by_transaction.iter().flat_map(|t| &t.topic_results);
            let topics = by_transaction.chain(&r.results_by_topic_v3_and_below);
            topics.flat_map(|t| &t.results_by_partition).for_each(|p| each(p.partition_error_code));
        }
        R::WriteTxnMarkers(r) => {
            let topics = r.markers.iter().flat_map(|m| &m.topics);
            topics.flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::AlterPartition(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::Vote(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::BeginQuorumEpoch(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::EndQuorumEpoch(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::DescribeQuorum(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::FetchSnapshot(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::CreateTopics(r) => r.topics.iter().for_each(|t| each(t.error_code)),
        R::DeleteTopics(r) => r.responses.iter().for_each(|t| each(t.error_code)),
        R::CreatePartitions(r) => r.results.iter().for_each(|t| each(t.error_code)),
        R::DescribeConfigs(r) => r.results.iter().for_each(|t| each(t.error_code)),
        R::AlterConfigs(r) => r.responses.iter().for_each(|t| each(t.error_code)),
        R::IncrementalAlterConfigs(r) => r.responses.iter().for_each(|t| each(t.error_code)),
        R::DescribeTopicPartitions(r) => r.topics.iter().for_each(|t| each(t.error_code)),
        R::ElectLeaders(r) => {
            each(r.error_code);
            let partitions = r.replica_election_results.iter().flat_map(|t| &t.partition_result);
            partitions.for_each(|p| each(p.error_code));
        }
        R::LeaveGroup(r) => {
            each(r.error_code);
            r.members.iter().for_each(|m| each(m.error_code));
        }
        R::OffsetDelete(r) => {
            each(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| each(p.error_code));
        }
        R::DescribeGroups(r) => r.groups.iter().for_each(|g| each(g.error_code)),
        R::ConsumerGroupDescribe(r) => r.groups.iter().for_each(|g| each(g.error_code)),
        R::DeleteGroups(r) => r.results.iter().for_each(|g| each(g.error_code)),
        R::InitProducerId(r) => each(r.error_code.code()),
        R::AddOffsetsToTxn(r) => each(r.error_code),
        R::EndTxn(r) => each(r.error_code),
        R::DescribeTransactions(r) => r.transaction_states.iter().for_each(|t| each(t.error_code)),
        R::ListTransactions(r) => each(r.error_code),
        R::ApiVersions(r) => each(r.error_code),
        R::JoinGroup(r) => each(r.error_code),
        R::SyncGroup(r) => each(r.error_code),
        R::Heartbeat(r) => each(r.error_code),
        R::ListGroups(r) => each(r.error_code),
        R::ConsumerGroupHeartbeat(r) => each(r.error_code),
        R::DescribeCluster(r) => each(r.error_code),
        R::Envelope(r) => each(r.error_code),
        R::BrokerRegistration(r) => each(r.error_code),
        R::BrokerHeartbeat(r) => each(r.error_code),
        R::UnregisterBroker(r) => each(r.error_code),
        R::AllocateProducerIds(r) => each(r.error_code),
        R::AssignReplicasToDirs(r) => each(r.error_code),
        // Not served here.
        R::DescribeProducers(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use protocol::messages::{HeartbeatResponse, ProduceResponse};

    use super::*;

    #[test]
    fn each_error_of_an_answer_counts_and_success_does_not() {
        let requests = Requests::default();
        requests.came(ApiKey::Produce);
        requests.came(ApiKey::Heartbeat);
        let codes = [ErrorCode::NONE, ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::NOT_LEADER_OR_FOLLOWER];
        let partitions = codes.map(|code| PartitionProduceResponse::default().with_error_code(code.code()));
        let topic = TopicProduceResponse::default().with_partition_responses(partitions.into());
        requests.answered(&ProduceResponse::default().with_responses(vec![topic]).into(), 50);
        requests.answered(&HeartbeatResponse::default().into(), 10);
        let mut out = Snapshot::default();
        requests.measure(&mut out);
        let text = out.render();
        for line in [
            r#"kafka_network_requestmetrics_errors_total{request="Produce",error="NOT_LEADER_OR_FOLLOWER"} 2"#,
            r#"kafka_network_requestmetrics_requests_total{request="Heartbeat"} 1"#,
            r#"kafka_network_requestmetrics_responsebytes_total{request="Produce"} 50"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert_eq!(text.matches("errors_total{").count(), 1, "{text}");
    }
}
