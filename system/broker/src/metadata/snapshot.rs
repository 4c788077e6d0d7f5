//! The state of the metadata as batches of the records that lead to it, which is what a snapshot holds (KIP-630).

use bytes::{Bytes, BytesMut};
use protocol::batch::{self, BatchBuilder, BatchError, Limits, Record};

use super::image::{MetadataImage, Unfit};
use super::records::MetadataRecord;
use crate::codec::CodecError;

/// Records of a batch.
const BATCH: usize = 1000;
/// Records of the metadata log are small; a batch of more is not ours.
pub(super) const LIMITS: Limits = Limits { max_decompressed_bytes: 64 << 20 };

/// Stored metadata that does not read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{0}")]
    Batch(#[from] BatchError),
    #[error("{0}")]
    Record(#[from] CodecError),
    #[error("{0}")]
    Unfit(#[from] Unfit),
}

/// One batch of the records.
pub(super) fn encode<'a>(records: impl IntoIterator<Item = &'a MetadataRecord>, timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in records {
        builder.push(&Record { timestamp, value: Some(record.encode()), ..Record::default() });
    }
    builder.build()
}

/// Applies the records of a batch to the image and hands each to `each`, with the image that it made.
pub(super) fn apply(
    batch: &Bytes,
    image: &mut MetadataImage,
    mut each: impl FnMut(MetadataRecord, &MetadataImage),
) -> Result<(), Unreadable> {
    for record in batch::decode_records(batch, &LIMITS)? {
        let record = MetadataRecord::decode(&record.value.unwrap_or_default())?;
        image.apply(&record)?;
        each(record, image);
    }
    Ok(())
}

/// The image as batches.
pub(super) fn write(image: &MetadataImage, timestamp: i64) -> Bytes {
    let records = image.to_records();
    let mut out = BytesMut::new();
    for chunk in records.chunks(BATCH) {
        out.extend_from_slice(&encode(chunk, timestamp));
    }
    out.freeze()
}

/// The image that [`write`] wrote.
pub(super) fn read(bytes: Bytes) -> Result<MetadataImage, Unreadable> {
    let mut image = MetadataImage::default();
    for part in batch::split(bytes) {
        let (header, batch) = part?;
        header.verify_crc(&batch)?;
        apply(&batch, &mut image, |_, _| {})?;
    }
    Ok(image)
}
