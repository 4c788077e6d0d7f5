//! One program for all tests of the broker: what each would compile anew of it is most of the time they take.

mod cluster;
mod compaction;
mod controller;
mod delete_records;
mod machine;
mod membership;
mod metrics;
mod offsets_retention;
mod partition;
mod power_loss;
mod quorum;
mod quorum_world;
mod replicas;
mod replication;
mod server;
mod transactions;
mod txn_cluster;
