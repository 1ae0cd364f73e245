//! The usual JSON object, read in one pass over its bytes.
//!
//! In: the text of one record. Out: its members, name and raw value, borrowed from the text. Promise: what is taken is what
//! serde_json would take, with the same members; the reverse does not hold: whatever is not usual (an escape in a name, objects
//! within objects beyond 64, anything wrong) is given up, and serde_json decides and explains.
//! Not here: which names mean something, whether one may come twice.

/// Objects and arrays that may be open inside of a value.
const DEEPEST: u32 = 64;

/// Calls `meet` for each member in order, until it gives up too. `None`: given up; members may have been met by then.
pub(super) fn members<'a>(
    text: &'a str,
    mut meet: impl FnMut(&'a str, &'a str) -> Option<()>,
) -> Option<()> {
    let mut scan = Scan { text, at: 0 };
    scan.blanks();
    scan.take(b'{')?;
    scan.blanks();
    if scan.peek()? == b'}' {
        scan.at += 1;
    } else {
        loop {
            let name = scan.name()?;
            let start = scan.at;
            scan.value()?;
            meet(name, text.get(start..scan.at)?)?;
            scan.blanks();
            match scan.next()? {
                b',' => scan.blanks(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    scan.blanks();
    (scan.at == text.len()).then_some(())
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// A member's name and all up to its value.
    fn name(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        self.at = plain(self.text.as_bytes(), start);
        let name = self.text.get(start..self.at)?;
        self.take(b'"')?;
        self.blanks();
        self.take(b':')?;
        self.blanks();
        Some(name)
    }

    /// A value of any kind; `at` is behind it.
    fn value(&mut self) -> Option<()> {
        // One bit for each that is open: 1 for an object, the innermost lowest.
        let (mut open, mut depth) = (0_u64, 0_u32);
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                bracket @ (b'{' | b'[') if depth < DEEPEST => {
                    self.at += 1;
                    self.blanks();
                    let is_object = bracket == b'{';
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        open = (open << 1) | u64::from(is_object);
                        depth += 1;
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                _ => return None,
            }
            // Behind a value: the next one, or the end of what it lies in.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.blanks();
                match (self.next()?, open & 1) {
                    (b',', is_object) => {
                        self.blanks();
                        if is_object == 1 {
                            self.name()?;
                        }
                        break;
                    }
                    (b'}', 1) | (b']', 0) => {
                        open >>= 1;
                        depth -= 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at = plain(self.text.as_bytes(), self.at);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.at_least_a_digit()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.at_least_a_digit()?;
        }
        Some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn at_least_a_digit(&mut self) -> Option<()> {
        let before = self.at;
        self.digits();
        (self.at > before).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let end = self.at + word.len();
        let is_there = self.text.as_bytes().get(self.at..end)? == word.as_bytes();
        self.at = end;
        is_there.then_some(())
    }
}

/// The place of the first quote, backslash or control character from `at` on, or the end.
fn plain(bytes: &[u8], mut at: usize) -> usize {
    // Eight bytes at a time. The lowest mark is exact, and only that one is used.
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let marks = marks(u64::from_le_bytes(*eight));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len())
}

/// The high bit of each byte that is a quote, a backslash or below 0x20; above the lowest of them there may be wrong ones.
fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let below = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let of = |byte: u8| zeros(word ^ (ONES * u64::from(byte)));
    of(b'"') | of(b'\\') | below
}
