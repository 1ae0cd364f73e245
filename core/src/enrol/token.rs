//! A token as an operator carries it to a host: `garam1.ID.SECRET.PIN`.
//!
//! ID names it in lists and logs. SECRET opens; the core keeps only its SHA-256. PIN is the SHA-256 of the root's public key,
//! by which the host knows the core before it sends anything. All three are hexadecimal.

use garam_meta::KeyHash;
use ring::rand::{SecureRandom, SystemRandom};

use crate::pki::key_hash;

/// What every token of this form begins with.
const FORM: &str = "garam1";

/// A token that was just made; its secret is known here alone.
pub struct FreshToken {
    pub id: String,
    secret: String,
}

impl FreshToken {
    /// `None` when the system has no random numbers.
    pub fn mint() -> Option<Self> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        let random = SystemRandom::new();
        random.fill(&mut id).ok()?;
        random.fill(&mut secret).ok()?;
        Some(Self { id: hex(&id), secret: hex(&secret) })
    }

    pub fn secret_hash(&self) -> KeyHash {
        secret_hash(&self.secret)
    }

    /// The whole token, to be shown once.
    pub fn text(&self, pin: KeyHash) -> String {
        format!("{FORM}.{}.{}.{pin}", self.id, self.secret)
    }
}

pub fn secret_hash(secret: &str) -> KeyHash {
    key_hash(secret.as_bytes())
}

/// Compares in a time that depends on neither.
pub fn are_equal(a: KeyHash, b: KeyHash) -> bool {
    a.0.iter().zip(b.0).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
