//! Layouts: what clients ask about the cluster, and change in it.

use kafka_protocol::messages;

use super::super::Kind::{Array, I8, I16, I32, I64, Id, Maybe, Struct, Text};
use super::super::{Known, Layout, all, from, only, tag};

impl Known for messages::MetadataRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 9,
        fields: &[all(Array(&Struct(&[from(10, Id), all(Text)]))), from(4, I8), only(8, 10, I8), from(8, I8)],
    };
}

impl Known for messages::MetadataResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 9,
        fields: &[
            from(3, I32),
            all(Array(&Struct(&[all(I32), all(Text), all(I32), from(1, Text)]))),
            from(2, Text),
            from(1, I32),
            all(Array(&Struct(&[
                all(I16),
                all(Text),
                from(10, Id),
                from(1, I8),
                all(Array(&Struct(&[
                    all(I16),
                    all(I32),
                    all(I32),
                    from(7, I32),
                    all(Array(&I32)),
                    all(Array(&I32)),
                    from(5, Array(&I32)),
                ]))),
                from(8, I32),
            ]))),
            only(8, 10, I32),
            from(13, I16),
        ],
    };
}

impl Known for messages::ApiVersionsRequest {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[from(3, Text), from(3, Text)] };
}

impl Known for messages::ApiVersionsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[
            all(I16),
            all(Array(&Struct(&[all(I16), all(I16), all(I16)]))),
            from(1, I32),
            tag(0, 3, Array(&Struct(&[from(3, Text), from(3, I16), from(3, I16)]))),
            tag(1, 3, I64),
            tag(2, 3, Array(&Struct(&[from(3, Text), from(3, I16), from(3, I16)]))),
            tag(3, 3, I8),
        ],
    };
}

impl Known for messages::DescribeClusterRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I8), from(1, I8), from(2, I8)] };
}

impl Known for messages::DescribeClusterResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(I16),
            all(Text),
            from(1, I8),
            all(Text),
            all(I32),
            all(Array(&Struct(&[all(I32), all(Text), all(I32), all(Text), from(2, I8)]))),
            all(I32),
        ],
    };
}

impl Known for messages::DescribeTopicPartitionsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[all(Array(&Struct(&[all(Text)]))), all(I32), all(Maybe(&[all(Text), all(I32)]))],
    };
}

impl Known for messages::DescribeTopicPartitionsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(Array(&Struct(&[
                all(I16),
                all(Text),
                all(Id),
                all(I8),
                all(Array(&Struct(&[
                    all(I16),
                    all(I32),
                    all(I32),
                    all(I32),
                    all(Array(&I32)),
                    all(Array(&I32)),
                    all(Array(&I32)),
                    all(Array(&I32)),
                    all(Array(&I32)),
                ]))),
                all(I32),
            ]))),
            all(Maybe(&[all(Text), all(I32)])),
        ],
    };
}

impl Known for messages::CreateTopicsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 5,
        fields: &[
            all(Array(&Struct(&[
                all(Text),
                all(I32),
                all(I16),
                all(Array(&Struct(&[all(I32), all(Array(&I32))]))),
                all(Array(&Struct(&[all(Text), all(Text)]))),
            ]))),
            all(I32),
            all(I8),
        ],
    };
}

impl Known for messages::CreateTopicsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 5,
        fields: &[
            all(I32),
            all(Array(&Struct(&[
                all(Text),
                from(7, Id),
                all(I16),
                all(Text),
                tag(0, 5, I16),
                from(5, I32),
                from(5, I16),
                from(5, Array(&Struct(&[from(5, Text), from(5, Text), from(5, I8), from(5, I8), from(5, I8)]))),
            ]))),
        ],
    };
}

impl Known for messages::DeleteTopicsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[from(6, Array(&Struct(&[from(6, Text), from(6, Id)]))), only(1, 5, Array(&Text)), all(I32)],
    };
}

impl Known for messages::DeleteTopicsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[all(I32), all(Array(&Struct(&[all(Text), from(6, Id), all(I16), from(5, Text)])))],
    };
}

impl Known for messages::CreatePartitionsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[
            all(Array(&Struct(&[all(Text), all(I32), all(Array(&Struct(&[all(Array(&I32))])))]))),
            all(I32),
            all(I8),
        ],
    };
}

impl Known for messages::CreatePartitionsResponse {
    const LAYOUT: Layout =
        Layout { flexible_from: 2, fields: &[all(I32), all(Array(&Struct(&[all(Text), all(I16), all(Text)])))] };
}

impl Known for messages::DescribeConfigsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[all(Array(&Struct(&[all(I8), all(Text), all(Array(&Text))]))), all(I8), from(3, I8)],
    };
}

impl Known for messages::DescribeConfigsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[
            all(I32),
            all(Array(&Struct(&[
                all(I16),
                all(Text),
                all(I8),
                all(Text),
                all(Array(&Struct(&[
                    all(Text),
                    all(Text),
                    all(I8),
                    all(I8),
                    all(I8),
                    all(Array(&Struct(&[all(Text), all(Text), all(I8)]))),
                    from(3, I8),
                    from(3, Text),
                ]))),
            ]))),
        ],
    };
}

impl Known for messages::AlterConfigsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[all(Array(&Struct(&[all(I8), all(Text), all(Array(&Struct(&[all(Text), all(Text)])))]))), all(I8)],
    };
}

impl Known for messages::AlterConfigsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[all(I32), all(Array(&Struct(&[all(I16), all(Text), all(I8), all(Text)])))],
    };
}

impl Known for messages::IncrementalAlterConfigsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 1,
        fields: &[
            all(Array(&Struct(&[all(I8), all(Text), all(Array(&Struct(&[all(Text), all(I8), all(Text)])))]))),
            all(I8),
        ],
    };
}

impl Known for messages::IncrementalAlterConfigsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 1,
        fields: &[all(I32), all(Array(&Struct(&[all(I16), all(Text), all(I8), all(Text)])))],
    };
}

impl Known for messages::ElectLeadersRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[from(1, I8), all(Array(&Struct(&[all(Text), all(Array(&I32))]))), all(I32)],
    };
}

impl Known for messages::ElectLeadersResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[
            all(I32),
            from(1, I16),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16), all(Text)])))]))),
        ],
    };
}
