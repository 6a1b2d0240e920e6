//! Where content stands, and whether what was read back is what was written.
//!
//! Promises: an extent is never longer than 64 KiB. Pure; lives on its shard.

use super::DirectoryId;

/// A piece of the content of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The directory.
    pub directory: DirectoryId,
    /// The file in it.
    pub segment: u32,
    /// Octets before the piece; aligned to nothing.
    pub offset: u64,
    /// Octets of the piece.
    pub length: u32,
    /// CRC32 of the piece.
    pub checksum: u32,
}

impl Extent {
    /// Checks the piece as it is read.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            hasher: crc32fast::Hasher::new(),
            length: 0,
            extent: *self,
        }
    }
}

/// Sees all octets of an extent, in order, and says whether they are those that were written.
#[derive(Clone, Debug)]
pub struct Verifier {
    hasher: crc32fast::Hasher,
    length: u64,
    extent: Extent,
}

impl Verifier {
    /// The next octets.
    pub fn update(&mut self, octets: &[u8]) {
        self.hasher.update(octets);
        self.length += octets.len() as u64;
    }

    /// Whether it was all of the extent, unchanged.
    pub fn finish(self) -> bool {
        self.length == u64::from(self.extent.length) && self.hasher.finalize() == self.extent.checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_knows_the_octets_however_they_are_cut() {
        let extent = Extent {
            directory: DirectoryId(0),
            segment: 1,
            offset: 40,
            length: 5,
            checksum: crc32fast::hash(b"hello"),
        };
        let verified = |pieces: &[&[u8]]| {
            let mut verifier = extent.verifier();
            pieces.iter().for_each(|piece| verifier.update(piece));
            verifier.finish()
        };
        assert!(verified(&[b"hello"]));
        assert!(verified(&[b"h", b"", b"ello"]));
        assert!(!verified(&[b"hell"]));
        assert!(!verified(&[b"hello", b"o"]));
        assert!(!verified(&[b"hallo"]));
    }
}
