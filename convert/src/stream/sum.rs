//! SHA-256 whose state can be stored, so that another process goes on with it.

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

/// The hash of the bytes so far.
#[derive(Clone, Default)]
pub struct Sum(Sha256);

impl Sum {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// The state as hexadecimal digits.
    pub fn state(&self) -> String {
        hex(&self.0.serialize())
    }

    /// From such a state; `None` if it is none.
    pub fn from_state(text: &str) -> Option<Self> {
        let bytes = unhex(text)?;
        let state = SerializedState::<Sha256>::try_from(&bytes[..]).ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal digits as bytes.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| text.as_bytes().chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_state_goes_on_at_any_byte() {
        let bytes: Vec<u8> = (0..300u16).map(|i| (i * 7) as u8).collect();
        let mut whole = Sum::default();
        whole.update(&bytes);
        let whole = whole.finish();
        for cut in [0, 1, 63, 64, 65, 128, 299, 300] {
            let mut first = Sum::default();
            first.update(&bytes[..cut]);
            let mut second = Sum::from_state(&first.state()).unwrap();
            second.update(&bytes[cut..]);
            assert_eq!(second.finish(), whole, "{cut}");
        }
        // As sha256sum has it.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&Sum::default().finish()), empty);
        for wrong in ["", "00", "zz", &Sum::default().state()[2..], &"f".repeat(210)] {
            assert!(Sum::from_state(wrong).is_none(), "{wrong}");
        }
    }
}
