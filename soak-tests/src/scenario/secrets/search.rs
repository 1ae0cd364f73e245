//! Searches texts for secrets and for characters that do something to a terminal.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A text that must be nowhere, and what it is.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    pub(super) what: String,
    pub(super) text: String,
}

/// Texts as they came, and what must not be in them.
#[derive(Debug)]
pub(super) struct Search {
    secrets: Vec<Secret>,
    texts: Vec<(String, Vec<u8>)>,
}

impl Search {
    pub(super) fn for_secrets(secrets: Vec<Secret>) -> Self {
        Self { secrets, texts: Vec::new() }
    }

    pub(super) fn secret(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.secrets.push(Secret { what: what.into(), text: text.into() });
    }

    pub(super) fn output(&mut self, name: &str, bytes: &[u8]) {
        self.texts.push((name.to_owned(), bytes.to_vec()));
    }

    pub(super) fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let bytes = std::fs::read(path).with_context(|| format!("no {}", path.display()))?;
        self.texts.push((path.display().to_string(), bytes));
        Ok(())
    }

    pub(super) fn files(&mut self, folder: &Path, names: &[&str]) -> anyhow::Result<()> {
        names.iter().try_for_each(|name| self.file(&folder.join(name)))
    }

    pub(super) fn folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            self.file(&entry?.path())?;
        }
        Ok(())
    }

    /// The arguments of every process that was given one of these files.
    pub(super) fn processes(&mut self, of: &[&PathBuf]) -> anyhow::Result<()> {
        let mut found = 0;
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path().join("cmdline");
            // Other entries have none, and processes end.
            let Ok(line) = std::fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&line).replace('\0', " ");
            if of.iter().any(|file| text.contains(&file.display().to_string())) {
                found += 1;
                self.output(&path.display().to_string(), text.as_bytes());
            }
        }
        anyhow::ensure!(found >= of.len(), "{found} processes found, {} run", of.len());
        Ok(())
    }

    /// Texts, their bytes, and secrets.
    pub(super) fn size(&self) -> (u64, u64, u64) {
        let bytes = self.texts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        (self.texts.len() as u64, bytes, self.secrets.len() as u64)
    }

    /// `what in where`, each once.
    pub(super) fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (name, bytes) in &self.texts {
            let text = String::from_utf8_lossy(bytes);
            for Secret { what, .. } in self.secrets.iter().filter(|s| text.contains(&s.text)) {
                leaks.push(format!("{what} in {name}"));
            }
            if let Some(c) = text.chars().find(|c| is_raw(*c)) {
                leaks.push(format!("a raw {} in {name}", c.escape_default()));
            }
            // A name with a line feed would begin a line of its own with this.
            if text.lines().any(|line| line.starts_with(super::world::FORGED)) {
                leaks.push(format!("a forged line in {name}"));
            }
        }
        leaks
    }
}

/// Escape sequences, controls, and marks that turn the direction of text around.
fn is_raw(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_raw_characters_are_found_and_harmless_text_is_not() {
        let mut search = Search::for_secrets(Vec::new());
        search.secret("the password", "hunter2");
        search.output("good", "\\u{1b} hunter 2\n\tplain".as_bytes());
        assert!(search.leaks().is_empty());
        search.output("a", b"x hunter2 y");
        search.output("b", b"\x1b[2J");
        search.output("c", "\u{202e}".as_bytes());
        search.output("d", b"ok\nFORGED LINE\n");
        assert_eq!(
            search.leaks(),
            [
                "the password in a",
                "a raw \\u{1b} in b",
                "a raw \\u{202e} in c",
                "a forged line in d"
            ]
        );
    }
}
