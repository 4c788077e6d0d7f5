//! Layouts: transactions.

use kafka_protocol::messages;

use super::super::Kind::{Array, I8, I16, I32, I64, Struct, Text};
use super::super::{Known, Layout, all, from, only};

impl Known for messages::AddPartitionsToTxnRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[
            from(
                4,
                Array(&Struct(&[
                    from(4, Text),
                    from(4, I64),
                    from(4, I16),
                    from(4, I8),
                    from(4, Array(&Struct(&[all(Text), all(Array(&I32))]))),
                ])),
            ),
            only(0, 3, Text),
            only(0, 3, I64),
            only(0, 3, I16),
            only(0, 3, Array(&Struct(&[all(Text), all(Array(&I32))]))),
        ],
    };
}

impl Known for messages::AddPartitionsToTxnResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[
            all(I32),
            from(4, I16),
            from(
                4,
                Array(&Struct(&[
                    from(4, Text),
                    from(4, Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))]))),
                ])),
            ),
            only(0, 3, Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))]))),
        ],
    };
}

impl Known for messages::AddOffsetsToTxnRequest {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[all(Text), all(I64), all(I16), all(Text)] };
}

impl Known for messages::AddOffsetsToTxnResponse {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[all(I32), all(I16)] };
}

impl Known for messages::EndTxnRequest {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[all(Text), all(I64), all(I16), all(I8)] };
}

impl Known for messages::EndTxnResponse {
    const LAYOUT: Layout = Layout { flexible_from: 3, fields: &[all(I32), all(I16), from(5, I64), from(5, I16)] };
}

/// Of [`crate::WriteTxnMarkersRequest`].
pub(crate) const WRITE_TXN_MARKERS_REQUEST: Layout = Layout {
    flexible_from: 0,
    fields: &[all(Array(&Struct(&[
        all(I64),
        all(I16),
        all(I8),
        all(Array(&Struct(&[all(Text), all(Array(&I32))]))),
        all(I32),
        from(2, I8),
    ])))],
};

/// Of [`messages::WriteTxnMarkersResponse`], which is the same in version 2.
pub(crate) const WRITE_TXN_MARKERS_RESPONSE: Layout = Layout {
    flexible_from: 0,
    fields: &[all(Array(&Struct(&[
        all(I64),
        all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))]))),
    ])))],
};

impl Known for messages::TxnOffsetCommitRequest {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[
            all(Text),
            all(Text),
            all(I64),
            all(I16),
            from(3, I32),
            from(3, Text),
            from(3, Text),
            all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I64), from(2, I32), all(Text)])))]))),
        ],
    };
}

impl Known for messages::TxnOffsetCommitResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 3,
        fields: &[all(I32), all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))])))],
    };
}

impl Known for messages::DescribeProducersRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(Array(&Struct(&[all(Text), all(Array(&I32))])))] };
}

impl Known for messages::DescribeProducersResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(Array(&Struct(&[
                all(Text),
                all(Array(&Struct(&[
                    all(I32),
                    all(I16),
                    all(Text),
                    all(Array(&Struct(&[all(I64), all(I32), all(I32), all(I64), all(I32), all(I64)]))),
                ]))),
            ]))),
        ],
    };
}

impl Known for messages::DescribeTransactionsRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(Array(&Text))] };
}

impl Known for messages::DescribeTransactionsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[
            all(I32),
            all(Array(&Struct(&[
                all(I16),
                all(Text),
                all(Text),
                all(I32),
                all(I64),
                all(I64),
                all(I16),
                all(Array(&Struct(&[all(Text), all(Array(&I32))]))),
            ]))),
        ],
    };
}

impl Known for messages::ListTransactionsRequest {
    const LAYOUT: Layout =
        Layout { flexible_from: 0, fields: &[all(Array(&Text)), all(Array(&I64)), from(1, I64), from(2, Text)] };
}

impl Known for messages::ListTransactionsResponse {
    const LAYOUT: Layout = Layout {
        flexible_from: 0,
        fields: &[all(I32), all(I16), all(Array(&Text)), all(Array(&Struct(&[all(Text), all(I64), all(Text)])))],
    };
}

impl Known for messages::AllocateProducerIdsRequest {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I32), all(I64)] };
}

impl Known for messages::AllocateProducerIdsResponse {
    const LAYOUT: Layout = Layout { flexible_from: 0, fields: &[all(I32), all(I16), all(I64), all(I32)] };
}
