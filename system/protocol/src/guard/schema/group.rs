//! Layouts: groups and their offsets.

use kafka_protocol::messages;

use super::super::Kind::{Array, Blob, I8, I16, I32, I64, Id, Maybe, Struct, Text};
use super::super::{Known, Layout, all, from, only};

impl Known for messages::OffsetCommitRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 8,
        fields: &[
            all(Text),
            all(I32),
            all(Text),
            from(7, Text),
            only(2, 4, I64),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I64), from(6, I32), all(Text)])))]))),
        ],
    };
}

impl Known for messages::OffsetCommitResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 8,
        fields: &[
            from(3, I32),
            all(Array(&Struct(&[only(2, 9, Text), from(10, Id), all(Array(&Struct(&[all(I32), all(I16)])))]))),
        ],
    };
}

impl Known for messages::OffsetFetchRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 6,
        fields: &[
            only(1, 7, Text),
            only(1, 7, Array(&Struct(&[only(1, 7, Text), only(1, 7, Array(&I32))]))),
            from(
                8,
                Array(&Struct(&[
                    from(8, Text),
                    from(9, Text),
                    from(9, I32),
                    from(8, Array(&Struct(&[from(8, Text), from(8, Array(&I32))]))),
                ])),
            ),
            from(7, I8),
        ],
    };
}

impl Known for messages::OffsetFetchResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 6,
        fields: &[
            from(3, I32),
            only(
                1,
                7,
                Array(&Struct(&[
                    only(1, 7, Text),
                    only(
                        1,
                        7,
                        Array(&Struct(&[
                            only(1, 7, I32),
                            only(1, 7, I64),
                            only(5, 7, I32),
                            only(1, 7, Text),
                            only(1, 7, I16),
                        ])),
                    ),
                ])),
            ),
            only(2, 7, I16),
            from(
                8,
                Array(&Struct(&[
                    from(8, Text),
                    from(
                        8,
                        Array(&Struct(&[
                            only(8, 9, Text),
                            from(10, Id),
                            from(
                                8,
                                Array(&Struct(&[
                                    from(8, I32),
                                    from(8, I64),
                                    from(8, I32),
                                    from(8, Text),
                                    from(8, I16),
                                ])),
                            ),
                        ])),
                    ),
                    from(8, I16),
                ])),
            ),
        ],
    };
}

impl Known for messages::OffsetDeleteRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: i16::MAX,
        fields: &[all(Text), all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32)])))])))],
    };
}

impl Known for messages::OffsetDeleteResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: i16::MAX,
        fields: &[all(I16), all(I32), all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))])))],
    };
}

impl Known for messages::FindCoordinatorRequest {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[only(0, 3, Text), from(1, I8), from(4, Array(&Text))] };
}

impl Known for messages::FindCoordinatorResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[
            from(1, I32),
            only(0, 3, I16),
            only(1, 3, Text),
            only(0, 3, I32),
            only(0, 3, Text),
            only(0, 3, I32),
            from(
                4,
                Array(&Struct(&[
                    from(4, Text),
                    from(4, I32),
                    from(4, Text),
                    from(4, I32),
                    from(4, I16),
                    from(4, Text),
                ])),
            ),
        ],
    };
}

impl Known for messages::JoinGroupRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 6,
        fields: &[
            all(Text),
            all(I32),
            from(1, I32),
            all(Text),
            from(5, Text),
            all(Text),
            all(Array(&Struct(&[all(Text), all(Blob)]))),
            from(8, Text),
        ],
    };
}

impl Known for messages::JoinGroupResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 6,
        fields: &[
            from(2, I32),
            all(I16),
            all(I32),
            from(7, Text),
            all(Text),
            all(Text),
            from(9, I8),
            all(Text),
            all(Array(&Struct(&[all(Text), from(5, Text), all(Blob)]))),
        ],
    };
}

impl Known for messages::HeartbeatRequest {
    const LAYOUT: Layout = Layout { flexible_from: 4, fields: &[all(Text), all(I32), all(Text), from(3, Text)] };
}

impl Known for messages::HeartbeatResponse {
    const LAYOUT: Layout = Layout { flexible_from: 4, fields: &[from(1, I32), all(I16)] };
}

impl Known for messages::LeaveGroupRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[all(Text), only(0, 2, Text), from(3, Array(&Struct(&[from(3, Text), from(3, Text), from(5, Text)])))],
    };
}

impl Known for messages::LeaveGroupResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[from(1, I32), all(I16), from(3, Array(&Struct(&[from(3, Text), from(3, Text), from(3, I16)])))],
    };
}

impl Known for messages::SyncGroupRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[
            all(Text),
            all(I32),
            all(Text),
            from(3, Text),
            from(5, Text),
            from(5, Text),
            all(Array(&Struct(&[all(Text), all(Blob)]))),
        ],
    };
}

impl Known for messages::SyncGroupResponse {
    const LAYOUT: Layout =
        Layout { flexible_from: 4, fields: &[from(1, I32), all(I16), from(5, Text), from(5, Text), all(Blob)] };
}

impl Known for messages::DescribeGroupsRequest {
    const LAYOUT: Layout = Layout { flexible_from: 5, fields: &[all(Array(&Text)), from(3, I8)] };
}

impl Known for messages::DescribeGroupsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 5,
        fields: &[
            from(1, I32),
            all(Array(&Struct(&[
                all(I16),
                from(6, Text),
                all(Text),
                all(Text),
                all(Text),
                all(Text),
                all(Array(&Struct(&[all(Text), from(4, Text), all(Text), all(Text), all(Blob), all(Blob)]))),
                from(3, I32),
            ]))),
        ],
    };
}

impl Known for messages::ListGroupsRequest {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[from(4, Array(&Text)), from(5, Array(&Text))] };
}

impl Known for messages::ListGroupsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[from(1, I32), all(I16), all(Array(&Struct(&[all(Text), all(Text), from(4, Text), from(5, Text)])))],
    };
}

impl Known for messages::DeleteGroupsRequest {
    const LAYOUT: Layout = Layout { flexible_from: 2, fields: &[all(Array(&Text))] };
}

impl Known for messages::DeleteGroupsResponse {
    const LAYOUT: Layout =
        Layout { flexible_from: 2, fields: &[all(I32), all(Array(&Struct(&[all(Text), all(I16)])))] };
}

impl Known for messages::ConsumerGroupHeartbeatRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(Text),
            all(Text),
            all(I32),
            all(Text),
            all(Text),
            all(I32),
            all(Array(&Text)),
            from(1, Text),
            all(Text),
            all(Array(&Struct(&[all(Id), all(Array(&I32))]))),
        ],
    };
}

impl Known for messages::ConsumerGroupHeartbeatResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I16),
            all(Text),
            all(Text),
            all(I32),
            all(I32),
            all(Maybe(&[all(Array(&Struct(&[all(Id), all(Array(&I32))])))])),
        ],
    };
}

impl Known for messages::ConsumerGroupDescribeRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(Array(&Text)), all(I8)] };
}

impl Known for messages::ConsumerGroupDescribeResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(Array(&Struct(&[
                all(I16),
                all(Text),
                all(Text),
                all(Text),
                all(I32),
                all(I32),
                all(Text),
                all(Array(&Struct(&[
                    all(Text),
                    all(Text),
                    all(Text),
                    all(I32),
                    all(Text),
                    all(Text),
                    all(Array(&Text)),
                    all(Text),
                    all(Struct(&[all(Array(&Struct(&[all(Id), all(Text), all(Array(&I32))])))])),
                    all(Struct(&[all(Array(&Struct(&[all(Id), all(Text), all(Array(&I32))])))])),
                    from(1, I8),
                ]))),
                all(I32),
            ]))),
        ],
    };
}

impl Known for messages::ConsumerProtocolSubscription {
    const LAYOUT: Layout = Layout {
        flexible_from: i16::MAX,
        fields: &[
            all(Array(&Text)),
            all(Blob),
            from(1, Array(&Struct(&[all(Text), all(Array(&I32))]))),
            from(2, I32),
            from(3, Text),
        ],
    };
}

impl Known for messages::ConsumerProtocolAssignment {
    const LAYOUT: Layout =
        Layout { flexible_from: i16::MAX, fields: &[all(Array(&Struct(&[all(Text), all(Array(&I32))]))), all(Blob)] };
}
