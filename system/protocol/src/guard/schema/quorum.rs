//! Layouts: the controller quorum, and brokers towards the controller.

use kafka_protocol::messages;

use super::super::Kind::{Array, Blob, I8, I16, I32, I64, Id, Struct, Text};
use super::super::{Known, Layout, all, from, only, tag};

impl Known for messages::VoteRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(Text),
            from(1, I32),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[
                    all(I32),
                    all(I32),
                    all(I32),
                    from(1, Id),
                    from(1, Id),
                    all(I32),
                    all(I64),
                    from(2, I8),
                ]))),
            ]))),
        ],
    };
}

impl Known for messages::VoteResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I16),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16), all(I32), all(I32), all(I8)])))]))),
            tag(0, 1, Array(&Struct(&[from(1, I32), from(1, Text), from(1, I16)]))),
        ],
    };
}

impl Known for messages::BeginQuorumEpochRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 1,
        fields: &[
            all(Text),
            from(1, I32),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), from(1, Id), all(I32), all(I32)])))]))),
            from(1, Array(&Struct(&[from(1, Text), from(1, Text), from(1, I16)]))),
        ],
    };
}

/// What both BeginQuorumEpoch and EndQuorumEpoch are answered with.
const EPOCH_RESPONSE: Layout = Layout {
    flexible_from: 1,
    fields: &[
        all(I16),
        all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16), all(I32), all(I32)])))]))),
        tag(0, 1, Array(&Struct(&[from(1, I32), from(1, Text), from(1, I16)]))),
    ],
};

impl Known for messages::BeginQuorumEpochResponse {
    const LAYOUT: Layout = EPOCH_RESPONSE;
}

impl Known for messages::EndQuorumEpochRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 1,
        fields: &[
            all(Text),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[
                    all(I32),
                    all(I32),
                    all(I32),
                    only(0, 0, Array(&I32)),
                    from(1, Array(&Struct(&[from(1, I32), from(1, Id)]))),
                ]))),
            ]))),
            from(1, Array(&Struct(&[from(1, Text), from(1, Text), from(1, I16)]))),
        ],
    };
}

impl Known for messages::EndQuorumEpochResponse {
    const LAYOUT: Layout = EPOCH_RESPONSE;
}

impl Known for messages::DescribeQuorumRequest {
    const LAYOUT: Layout =
        Layout { flexible_from: 0, fields: &[all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32)])))])))] };
}

impl Known for messages::DescribeQuorumResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I16),
            from(2, Text),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[
                    all(I32),
                    all(I16),
                    from(2, Text),
                    all(I32),
                    all(I32),
                    all(I64),
                    all(Array(&Struct(&[all(I32), from(2, Id), all(I64), from(1, I64), from(1, I64)]))),
                    all(Array(&Struct(&[all(I32), from(2, Id), all(I64), from(1, I64), from(1, I64)]))),
                ]))),
            ]))),
            from(
                2,
                Array(&Struct(&[from(2, I32), from(2, Array(&Struct(&[from(2, Text), from(2, Text), from(2, I16)])))])),
            ),
        ],
    };
}

impl Known for messages::FetchSnapshotRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            tag(0, 0, Text),
            all(I32),
            all(I32),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[all(I32), all(I32), all(Struct(&[all(I64), all(I32)])), all(I64), tag(0, 1, Id)]))),
            ]))),
        ],
    };
}

impl Known for messages::FetchSnapshotResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I16),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[
                    all(I32),
                    all(I16),
                    all(Struct(&[all(I64), all(I32)])),
                    tag(0, 0, Struct(&[all(I32), all(I32)])),
                    all(I64),
                    all(I64),
                    all(Blob),
                ]))),
            ]))),
            tag(0, 1, Array(&Struct(&[from(1, I32), from(1, Text), from(1, I16)]))),
        ],
    };
}

impl Known for messages::AlterPartitionRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I64),
            all(Array(&Struct(&[
                all(Id),
                all(Array(&Struct(&[
                    all(I32),
                    all(I32),
                    only(2, 2, Array(&I32)),
                    from(3, Array(&Struct(&[from(3, I32), from(3, I64)]))),
                    all(I8),
                    all(I32),
                ]))),
            ]))),
        ],
    };
}

impl Known for messages::AlterPartitionResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I16),
            all(Array(&Struct(&[
                all(Id),
                all(Array(&Struct(&[all(I32), all(I16), all(I32), all(I32), all(Array(&I32)), all(I8), all(I32)]))),
            ]))),
        ],
    };
}

impl Known for messages::AssignReplicasToDirsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I64),
            all(Array(&Struct(&[all(Id), all(Array(&Struct(&[all(Id), all(Array(&Struct(&[all(I32)])))])))]))),
        ],
    };
}

impl Known for messages::AssignReplicasToDirsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I16),
            all(Array(&Struct(&[
                all(Id),
                all(Array(&Struct(&[all(Id), all(Array(&Struct(&[all(I32), all(I16)])))]))),
            ]))),
        ],
    };
}

impl Known for messages::BrokerRegistrationRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(Text),
            all(Id),
            all(Array(&Struct(&[all(Text), all(Text), all(I16), all(I16)]))),
            all(Array(&Struct(&[all(Text), all(I16), all(I16)]))),
            all(Text),
            from(1, I8),
            from(2, Array(&Id)),
            from(3, I64),
        ],
    };
}

impl Known for messages::BrokerRegistrationResponse {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I32), all(I16), all(I64)] };
}

impl Known for messages::BrokerHeartbeatRequest {
    const LAYOUT: Layout =
        Layout { flexible_from: 0, fields: &[all(I32), all(I64), all(I64), all(I8), all(I8), tag(0, 1, Array(&Id))] };
}

impl Known for messages::BrokerHeartbeatResponse {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I32), all(I16), all(I8), all(I8), all(I8)] };
}

impl Known for messages::UnregisterBrokerRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I32)] };
}

impl Known for messages::UnregisterBrokerResponse {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I32), all(I16), all(Text)] };
}

impl Known for messages::EnvelopeRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(Blob), all(Blob), all(Blob)] };
}

impl Known for messages::EnvelopeResponse {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(Blob), all(I16)] };
}
