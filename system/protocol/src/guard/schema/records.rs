//! Layouts: what moves records: producing, fetching, and what is asked about offsets and epochs.

use kafka_protocol::messages;

use super::super::Kind::{Array, Blob, I8, I16, I32, I64, Id, Struct, Text};
use super::super::{Known, Layout, all, from, only, tag};

impl Known for messages::ProduceRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 9,
        fields: &[
            all(Text),
            all(I16),
            all(I32),
            all(Array(&Struct(&[only(3, 12, Text), from(13, Id), all(Array(&Struct(&[all(I32), all(Blob)])))]))),
        ],
    };
}

impl Known for messages::ProduceResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 9,
        fields: &[
            all(Array(&Struct(&[
                only(3, 12, Text),
                from(13, Id),
                all(Array(&Struct(&[
                    all(I32),
                    all(I16),
                    all(I64),
                    all(I64),
                    from(5, I64),
                    from(8, Array(&Struct(&[from(8, I32), from(8, Text)]))),
                    from(8, Text),
                    tag(0, 10, Struct(&[from(10, I32), from(10, I32)])),
                ]))),
            ]))),
            all(I32),
            tag(0, 10, Array(&Struct(&[from(10, I32), from(10, Text), from(10, I32), from(10, Text)]))),
        ],
    };
}

impl Known for messages::FetchRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 12,
        fields: &[
            tag(0, 12, Text),
            only(4, 14, I32),
            tag(1, 15, Struct(&[from(15, I32), from(15, I64)])),
            all(I32),
            all(I32),
            all(I32),
            all(I8),
            from(7, I32),
            from(7, I32),
            all(Array(&Struct(&[
                only(4, 12, Text),
                from(13, Id),
                all(Array(&Struct(&[
                    all(I32),
                    from(9, I32),
                    all(I64),
                    from(12, I32),
                    from(5, I64),
                    all(I32),
                    tag(0, 17, Id),
                    tag(1, 18, I64),
                ]))),
            ]))),
            from(7, Array(&Struct(&[only(7, 12, Text), from(13, Id), from(7, Array(&I32))]))),
            from(11, Text),
        ],
    };
}

impl Known for messages::FetchResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 12,
        fields: &[
            all(I32),
            from(7, I16),
            from(7, I32),
            all(Array(&Struct(&[
                only(4, 12, Text),
                from(13, Id),
                all(Array(&Struct(&[
                    all(I32),
                    all(I16),
                    all(I64),
                    all(I64),
                    from(5, I64),
                    tag(0, 12, Struct(&[from(12, I32), from(12, I64)])),
                    tag(1, 12, Struct(&[from(12, I32), from(12, I32)])),
                    tag(2, 12, Struct(&[all(I64), all(I32)])),
                    all(Array(&Struct(&[all(I64), all(I64)]))),
                    from(11, I32),
                    all(Blob),
                ]))),
            ]))),
            tag(0, 16, Array(&Struct(&[from(16, I32), from(16, Text), from(16, I32), from(16, Text)]))),
        ],
    };
}

impl Known for messages::ListOffsetsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 6,
        fields: &[
            all(I32),
            from(2, I8),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), from(4, I32), all(I64)])))]))),
            from(10, I32),
        ],
    };
}

impl Known for messages::ListOffsetsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 6,
        fields: &[
            from(2, I32),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[all(I32), all(I16), all(I64), all(I64), from(4, I32)]))),
            ]))),
        ],
    };
}

impl Known for messages::OffsetForLeaderEpochRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[
            from(3, I32),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I32), all(I32)])))]))),
        ],
    };
}

impl Known for messages::OffsetForLeaderEpochResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 4,
        fields: &[
            all(I32),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I16), all(I32), all(I32), all(I64)])))]))),
        ],
    };
}

impl Known for messages::DeleteRecordsRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I64)])))]))), all(I32)],
    };
}

impl Known for messages::DeleteRecordsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 2,
        fields: &[all(I32), all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I64), all(I16)])))])))],
    };
}
