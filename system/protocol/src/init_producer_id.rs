//! InitProducerId, all versions up to 6, which the `kafka-protocol` crate does not know yet. Version 6 is KIP-939's:
//! a client may take part in a two-phase commit and find its prepared transaction again.
//!
//! | field | type | versions |
//! |--|--|--|
//! | transactional_id | nullable string, compact from 2 | 0+ |
//! | transaction_timeout_ms | int32 | 0+ |
//! | producer_id, producer_epoch | int64, int16 | 3+ |
//! | enable_2pc, keep_prepared_txn | bool, bool | 6+ |
//!
//! | response field | type | versions |
//! |--|--|--|
//! | throttle_time_ms, error_code, producer_id, producer_epoch | int32, int16, int64, int16 | 0+ |
//! | ongoing_txn_producer_id, ongoing_txn_producer_epoch | int64, int16 | 6+ |

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::error_code::ErrorCode;
use crate::primitives::{nullable_string, put_nullable_string, skip_tagged_fields};
use crate::request::Malformed;

const FIRST_FLEXIBLE: i16 = 2;

/// Asks for a producer id; with a transactional id it also fences older incarnations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerIdRequest {
    pub transactional_id: Option<StrBytes>,
    pub transaction_timeout_ms: i32,
    /// The producer's present id and epoch, -1 when it has none (KIP-360).
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// The client takes part in two-phase commit: its prepared transactions have no time-out (KIP-939).
    pub enable_2pc: bool,
    /// Keep a prepared transaction instead of aborting it (KIP-939).
    pub keep_prepared_txn: bool,
}

impl Default for InitProducerIdRequest {
    fn default() -> Self {
        Self {
            transactional_id: None,
            transaction_timeout_ms: 0,
            producer_id: -1,
            producer_epoch: -1,
            enable_2pc: false,
            keep_prepared_txn: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Id and epoch of the transaction that was kept, -1 when there is none (KIP-939).
    pub ongoing_txn_producer_id: i64,
    pub ongoing_txn_producer_epoch: i16,
}

impl Default for InitProducerIdResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: ErrorCode::NONE,
            producer_id: -1,
            producer_epoch: -1,
            ongoing_txn_producer_id: -1,
            ongoing_txn_producer_epoch: -1,
        }
    }
}

impl InitProducerIdRequest {
    pub(crate) fn encode(&self, buf: &mut BytesMut, version: i16) {
        put_nullable_string(buf, self.transactional_id.as_ref(), version >= FIRST_FLEXIBLE);
        buf.put_i32(self.transaction_timeout_ms);
        if version >= 3 {
            buf.put_i64(self.producer_id);
            buf.put_i16(self.producer_epoch);
        }
        if version >= 6 {
            buf.put_u8(u8::from(self.enable_2pc));
            buf.put_u8(u8::from(self.keep_prepared_txn));
        }
        if version >= FIRST_FLEXIBLE {
            buf.put_u8(0);
        }
    }

    pub(crate) fn decode(buf: &mut impl Buf, version: i16) -> Result<Self, Malformed> {
        let mut request = Self {
            transactional_id: nullable_string(buf, version >= FIRST_FLEXIBLE)?,
            transaction_timeout_ms: buf.try_get_i32()?,
            ..Self::default()
        };
        if version >= 3 {
            request.producer_id = buf.try_get_i64()?;
            request.producer_epoch = buf.try_get_i16()?;
        }
        if version >= 6 {
            request.enable_2pc = buf.try_get_u8()? != 0;
            request.keep_prepared_txn = buf.try_get_u8()? != 0;
        }
        if version >= FIRST_FLEXIBLE {
            skip_tagged_fields(buf)?;
        }
        Ok(request)
    }
}

impl InitProducerIdResponse {
    pub(crate) fn encode(&self, buf: &mut BytesMut, version: i16) {
        buf.put_i32(self.throttle_time_ms);
        buf.put_i16(self.error_code.code());
        buf.put_i64(self.producer_id);
        buf.put_i16(self.producer_epoch);
        if version >= 6 {
            buf.put_i64(self.ongoing_txn_producer_id);
            buf.put_i16(self.ongoing_txn_producer_epoch);
        }
        if version >= FIRST_FLEXIBLE {
            buf.put_u8(0);
        }
    }

    pub(crate) fn decode(buf: &mut impl Buf, version: i16) -> Result<Self, Malformed> {
        let mut response = Self {
            throttle_time_ms: buf.try_get_i32()?,
            error_code: ErrorCode::from_code(buf.try_get_i16()?),
            producer_id: buf.try_get_i64()?,
            producer_epoch: buf.try_get_i16()?,
            ..Self::default()
        };
        if version >= 6 {
            response.ongoing_txn_producer_id = buf.try_get_i64()?;
            response.ongoing_txn_producer_epoch = buf.try_get_i16()?;
        }
        if version >= FIRST_FLEXIBLE {
            skip_tagged_fields(buf)?;
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;

    fn request() -> InitProducerIdRequest {
        InitProducerIdRequest {
            transactional_id: Some(StrBytes::from_static_str("tx")),
            transaction_timeout_ms: 60_000,
            producer_id: 4_000,
            producer_epoch: 7,
            enable_2pc: true,
            keep_prepared_txn: true,
        }
    }

    /// Bytes by hand from KIP-939's field table: compact string length + 1, then the fields in order, then no tags.
    #[test]
    fn golden_v6() {
        let mut buf = BytesMut::new();
        request().encode(&mut buf, 6);
        let golden = [
            0x03, b't', b'x', // transactional_id
            0x00, 0x00, 0xea, 0x60, // transaction_timeout_ms 60000
            0, 0, 0, 0, 0, 0, 0x0f, 0xa0, // producer_id 4000
            0x00, 0x07, // producer_epoch
            0x01, // enable_2pc
            0x01, // keep_prepared_txn
            0x00, // tagged fields
        ];
        assert_eq!(&buf[..], golden);
        assert_eq!(InitProducerIdRequest::decode(&mut &golden[..], 6), Ok(request()));

        let mut buf = BytesMut::new();
        InitProducerIdRequest::default().encode(&mut buf, 6);
        let golden = [0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0];
        assert_eq!(&buf[..], golden);

        let response = InitProducerIdResponse {
            throttle_time_ms: 1,
            error_code: ErrorCode::NONE,
            producer_id: 4_000,
            producer_epoch: 9,
            ongoing_txn_producer_id: 4_000,
            ongoing_txn_producer_epoch: 8,
        };
        let mut buf = BytesMut::new();
        response.encode(&mut buf, 6);
        let golden = [
            0, 0, 0, 1, // throttle_time_ms
            0, 0, // error_code
            0, 0, 0, 0, 0, 0, 0x0f, 0xa0, // producer_id
            0, 9, // producer_epoch
            0, 0, 0, 0, 0, 0, 0x0f, 0xa0, // ongoing_txn_producer_id
            0, 8, // ongoing_txn_producer_epoch
            0, // tagged fields
        ];
        assert_eq!(&buf[..], golden);
        assert_eq!(InitProducerIdResponse::decode(&mut &golden[..], 6), Ok(response));
    }

    /// Below version 6 the crate is the reference.
    #[test]
    fn agrees_with_the_crate_up_to_v5() {
        for version in 0..=5 {
            let mut ours = request();
            (ours.enable_2pc, ours.keep_prepared_txn) = (false, false);
            let mut theirs = kafka_protocol::messages::InitProducerIdRequest::default()
                .with_transactional_id(ours.transactional_id.clone().map(Into::into))
                .with_transaction_timeout_ms(ours.transaction_timeout_ms);
            if version >= 3 {
                theirs = theirs.with_producer_id(ours.producer_id.into()).with_producer_epoch(ours.producer_epoch);
            } else {
                (ours.producer_id, ours.producer_epoch) = (-1, -1);
            }
            let (mut a, mut b) = (BytesMut::new(), BytesMut::new());
            ours.encode(&mut a, version);
            theirs.encode(&mut b, version).unwrap();
            assert_eq!(a, b, "version {version}");
            assert_eq!(InitProducerIdRequest::decode(&mut b, version), Ok(ours));

            let ours = InitProducerIdResponse { producer_id: 5, producer_epoch: 6, ..Default::default() };
            let mut a = BytesMut::new();
            ours.encode(&mut a, version);
            let mut bytes = a.clone().freeze();
            let theirs = kafka_protocol::messages::InitProducerIdResponse::decode(&mut bytes, version).unwrap();
            assert_eq!((theirs.producer_id.0, theirs.producer_epoch), (5, 6));
            assert_eq!(InitProducerIdResponse::decode(&mut a, version), Ok(ours));
        }
    }
}
