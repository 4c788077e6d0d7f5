//! The bodies of requests and responses: two enums made from the one table of APIs.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::api::for_each_api;
use crate::guard::{self, Known, Layout};
use crate::request::Malformed;
use crate::{init_producer_id, write_txn_markers};

/// What the enums need of a message, be it of the `kafka-protocol` crate or our own.
pub(crate) trait Message: Sized {
    /// What is checked before it is read; `None` if reading checks by itself.
    const LAYOUT: Option<&'static Layout>;
    fn read(buf: &mut Bytes, version: i16) -> Result<Self, Malformed>;
    fn put(&self, buf: &mut BytesMut, version: i16) -> Result<(), String>;
}

impl<M: Known + Decodable + Encodable> Message for M {
    const LAYOUT: Option<&'static Layout> = Some(&<M as Known>::LAYOUT);

    fn read(buf: &mut Bytes, version: i16) -> Result<Self, Malformed> {
        Self::decode(buf, version).map_err(|e| Malformed::new(e.to_string()))
    }

    fn put(&self, buf: &mut BytesMut, version: i16) -> Result<(), String> {
        self.encode(buf, version).map_err(|e| e.to_string())
    }
}

macro_rules! own_message {
    ($message:ty) => {
        impl Message for $message {
            const LAYOUT: Option<&'static Layout> = None;

            fn read(buf: &mut Bytes, version: i16) -> Result<Self, Malformed> {
                Self::decode(buf, version)
            }

            fn put(&self, buf: &mut BytesMut, version: i16) -> Result<(), String> {
                self.encode(buf, version);
                Ok(())
            }
        }
    };
}
own_message!(init_producer_id::InitProducerIdRequest);
own_message!(init_producer_id::InitProducerIdResponse);

macro_rules! body {
    ($(#[$doc:meta])* $body:ident { $($api:ident($message:ty),)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $body {
            $($api($message),)*
        }

        impl $body {
            pub fn api_key(&self) -> ApiKey {
                match self {
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            pub(crate) fn layout(api: ApiKey) -> Option<&'static Layout> {
                match api {
                    $(ApiKey::$api => <$message as Message>::LAYOUT,)*
                    _ => None,
                }
            }

            pub(crate) fn decode(api: ApiKey, version: i16, buf: &mut Bytes) -> Result<Self, Malformed> {
                if let Some(layout) = Self::layout(api) {
                    guard::check(layout, version, buf)?;
                }
                Ok(match api {
                    $(ApiKey::$api => Self::$api(<$message as Message>::read(buf, version)?),)*
                    _ => return Err(Malformed::new("API without a body here")),
                })
            }

            pub(crate) fn put(&self, version: i16, buf: &mut BytesMut) -> Result<(), String> {
                match self {
                    $(Self::$api(m) => Message::put(m, buf, version),)*
                }
            }
        }

        $(impl From<$message> for $body {
            fn from(m: $message) -> Self {
                Self::$api(m)
            }
        })*
    };
}

macro_rules! bodies {
    ($($api:ident($request:ty, $response:ty),)*) => {
        body! {
            /// A request's body, one variant for each API.
            RequestBody { $($api($request),)* }
        }
        body! {
            /// A response's body, one variant for each API.
            ResponseBody { $($api($response),)* }
        }
    };
}
for_each_api!(bodies);
