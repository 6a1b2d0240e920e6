//! A message as the shard has it beside its envelope, and where its content is read from.

use postern::smtp::Form;
use postern::smtp::envelope::Envelope;
use postern::spool::{DirectoryId, Extent, QueueId, Spool};

use crate::disk::MemoryDisk;

pub struct Parcel {
    pub id: QueueId,
    pub token: u64,
    pub envelope: Envelope,
    pub fields: Vec<u8>,
    pub form: Form,
    /// Octets of content without doubled dots.
    pub size: u64,
    /// The content, while it is in memory.
    pub body: Option<Vec<u8>>,
    /// The spool has to hear of its end.
    pub begun: bool,
    pub durable: bool,
    pub tried: bool,
    /// Attempts under way.
    pub trying: usize,
}

impl Parcel {
    pub fn new(id: QueueId, token: u64, envelope: Envelope, fields: Vec<u8>, form: Form) -> Parcel {
        Parcel {
            id,
            token,
            envelope,
            fields,
            form,
            size: 0,
            body: None,
            begun: false,
            durable: false,
            tried: false,
            trying: 0,
        }
    }

    /// Whether nobody is about to read its content.
    pub fn rests(&self) -> bool {
        self.durable && self.tried && self.trying == 0
    }
}

/// The spool with its disk, for reading.
#[derive(Clone, Copy)]
pub struct Shelf<'a> {
    pub spool: &'a Spool,
    pub disk: &'a MemoryDisk,
    pub salts: &'a [u64],
}

impl Shelf<'_> {
    pub fn salt(&self, directory: DirectoryId) -> u64 {
        self.salts[directory.0 as usize]
    }

    /// A piece of content; none where it is not what was written.
    pub fn read(&self, extent: &Extent) -> Option<Vec<u8>> {
        let salt = self.salt(extent.directory);
        let octets = self
            .disk
            .try_read(salt, extent.segment, extent.offset, extent.length as usize)?;
        let mut verifier = extent.verifier();
        verifier.update(&octets);
        verifier.finish().then_some(octets)
    }

    /// All of it.
    pub fn content(&self, parcel: &Parcel) -> Option<Vec<u8>> {
        if let Some(octets) = &parcel.body {
            return Some(octets.clone());
        }
        let mut content = Vec::new();
        for extent in self.spool.extents(parcel.id)? {
            content.extend(self.read(&extent)?);
        }
        Some(content)
    }
}
