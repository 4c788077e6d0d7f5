//! The layouts of the messages, in the order of the wire: kind of each field and the versions that have it. Taken from
//! the message definitions of Apache Kafka as the `kafka-protocol` crate decodes them; a test compares the two.

use super::Kind::{Array, Blob, I8, I16, I32, I64, Id, Struct, Text};
use super::{Message, all, from, only, tag};

pub(super) const PRODUCE_REQUEST: Message = Message {
    flexible_from: 9,
    fields: &[
        all(Text),
        all(I16),
        all(I32),
        all(Array(&Struct(&[only(3, 12, Text), from(13, Id), all(Array(&Struct(&[all(I32), all(Blob)])))]))),
    ],
};

pub(super) const FETCH_REQUEST: Message = Message {
    flexible_from: 12,
    fields: &[
        only(4, 14, I32),
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
        tag(0, 12, Text),
        tag(1, 15, Struct(&[from(15, I32), from(15, I64)])),
    ],
};

pub(super) const LIST_OFFSETS_REQUEST: Message = Message {
    flexible_from: 6,
    fields: &[
        all(I32),
        from(2, I8),
        all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), from(4, I32), all(I64)])))]))),
        from(10, I32),
    ],
};

pub(super) const METADATA_REQUEST: Message = Message {
    flexible_from: 9,
    fields: &[all(Array(&Struct(&[from(10, Id), all(Text)]))), from(4, I8), only(8, 10, I8), from(8, I8)],
};

pub(super) const OFFSET_COMMIT_REQUEST: Message = Message {
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

pub(super) const OFFSET_FETCH_REQUEST: Message = Message {
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

pub(super) const FIND_COORDINATOR_REQUEST: Message =
    Message { flexible_from: 3, fields: &[only(0, 3, Text), from(1, I8), from(4, Array(&Text))] };

pub(super) const API_VERSIONS_REQUEST: Message = Message { flexible_from: 3, fields: &[from(3, Text), from(3, Text)] };

pub(super) const CREATE_TOPICS_REQUEST: Message = Message {
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

pub(super) const ADD_PARTITIONS_TO_TXN_REQUEST: Message = Message {
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

pub(super) const ADD_OFFSETS_TO_TXN_REQUEST: Message =
    Message { flexible_from: 3, fields: &[all(Text), all(I64), all(I16), all(Text)] };

pub(super) const END_TXN_REQUEST: Message =
    Message { flexible_from: 3, fields: &[all(Text), all(I64), all(I16), all(I8)] };

pub(super) const WRITE_TXN_MARKERS_REQUEST: Message = Message {
    flexible_from: 1,
    fields: &[all(Array(&Struct(&[
        all(I64),
        all(I16),
        all(I8),
        all(Array(&Struct(&[all(Text), all(Array(&I32))]))),
        all(I32),
    ])))],
};

pub(super) const TXN_OFFSET_COMMIT_REQUEST: Message = Message {
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

pub(super) const PRODUCE_RESPONSE: Message = Message {
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

pub(super) const FETCH_RESPONSE: Message = Message {
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
                all(Array(&Struct(&[all(I64), all(I64)]))),
                from(11, I32),
                all(Blob),
                tag(0, 12, Struct(&[from(12, I32), from(12, I64)])),
                tag(1, 12, Struct(&[from(12, I32), from(12, I32)])),
                tag(2, 12, Struct(&[all(I64), all(I32)])),
            ]))),
        ]))),
        tag(0, 16, Array(&Struct(&[from(16, I32), from(16, Text), from(16, I32), from(16, Text)]))),
    ],
};

pub(super) const LIST_OFFSETS_RESPONSE: Message = Message {
    flexible_from: 6,
    fields: &[
        from(2, I32),
        all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16), all(I64), all(I64), from(4, I32)])))]))),
    ],
};

pub(super) const METADATA_RESPONSE: Message = Message {
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

pub(super) const OFFSET_COMMIT_RESPONSE: Message = Message {
    flexible_from: 8,
    fields: &[
        from(3, I32),
        all(Array(&Struct(&[only(2, 9, Text), from(10, Id), all(Array(&Struct(&[all(I32), all(I16)])))]))),
    ],
};

pub(super) const OFFSET_FETCH_RESPONSE: Message = Message {
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
                            Array(&Struct(&[from(8, I32), from(8, I64), from(8, I32), from(8, Text), from(8, I16)])),
                        ),
                    ])),
                ),
                from(8, I16),
            ])),
        ),
    ],
};

pub(super) const FIND_COORDINATOR_RESPONSE: Message = Message {
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
            Array(&Struct(&[from(4, Text), from(4, I32), from(4, Text), from(4, I32), from(4, I16), from(4, Text)])),
        ),
    ],
};

pub(super) const API_VERSIONS_RESPONSE: Message = Message {
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

pub(super) const CREATE_TOPICS_RESPONSE: Message = Message {
    flexible_from: 5,
    fields: &[
        all(I32),
        all(Array(&Struct(&[
            all(Text),
            from(7, Id),
            all(I16),
            all(Text),
            from(5, I32),
            from(5, I16),
            from(5, Array(&Struct(&[from(5, Text), from(5, Text), from(5, I8), from(5, I8), from(5, I8)]))),
            tag(0, 5, I16),
        ]))),
    ],
};

pub(super) const ADD_PARTITIONS_TO_TXN_RESPONSE: Message = Message {
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

pub(super) const ADD_OFFSETS_TO_TXN_RESPONSE: Message = Message { flexible_from: 3, fields: &[all(I32), all(I16)] };

pub(super) const END_TXN_RESPONSE: Message =
    Message { flexible_from: 3, fields: &[all(I32), all(I16), from(5, I64), from(5, I16)] };

pub(super) const WRITE_TXN_MARKERS_RESPONSE: Message = Message {
    flexible_from: 1,
    fields: &[all(Array(&Struct(&[
        all(I64),
        all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))]))),
    ])))],
};

pub(super) const TXN_OFFSET_COMMIT_RESPONSE: Message = Message {
    flexible_from: 3,
    fields: &[all(I32), all(Array(&Struct(&[all(Text), all(Array(&Struct(&[all(I32), all(I16)])))])))],
};
