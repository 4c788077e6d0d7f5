//! The handlers of the group APIs: what clients send to and from what the coordinator knows.

pub mod admin;
pub mod classic;
pub mod consumer;
pub mod offsets;
