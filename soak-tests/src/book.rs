//! What was generated, by id: the only thing the oracle believes.
//!
//! In: one [`Page`] per record, in the order in which a writer wrote them. Out: lookups by writer and number. The numbers of
//! a writer begin at 1 and have no holes; 0 stands for the head that a writer repeats at the start of each of its files, which
//! has no id of its own and is counted.

/// Names a record for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) writer: u32,
    pub(crate) seq: u64,
}

/// The number that stands for a head.
pub(crate) const HEAD: u64 = 0;

/// What is known about one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// Of the content: of the members for a good record, of the whole text for one that breaks the contract.
    pub(crate) digest: u64,
    /// It breaks the contract and belongs into the quarantine.
    pub(crate) flawed: bool,
    /// Length of its line, newline included.
    pub(crate) bytes: u32,
}

/// Everything one writer wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chapter {
    pages: Vec<Page>,
    heads: u64,
    head_digest: u64,
}

impl Chapter {
    /// Notes a record or a head; records come in the order of their numbers.
    pub(crate) fn note(&mut self, seq: u64, page: Page) {
        if seq == HEAD {
            self.heads += 1;
            self.head_digest = page.digest;
            return;
        }
        self.pages.push(page);
        debug_assert_eq!(self.pages.len() as u64, seq, "numbers of a writer have no holes");
    }

    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    pub(crate) fn head_digest(&self) -> u64 {
        self.head_digest
    }

    /// All records with their numbers, heads apart.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, Page)> {
        (1..).zip(self.pages.iter().copied())
    }

    fn page(&self, seq: u64) -> Option<Page> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.pages.get(index).copied()
    }
}

/// Everything that was generated, by writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    pub(crate) chapters: Vec<Chapter>,
}

impl Book {
    /// The chapter of a writer.
    pub(crate) fn chapter(&self, writer: u32) -> Option<&Chapter> {
        self.chapters.get(usize::try_from(writer).ok()?)
    }

    /// What was written under an id; `None` when nothing was. Heads are no ids.
    pub(crate) fn page(&self, id: Id) -> Option<Page> {
        self.chapter(id.writer)?.page(id.seq)
    }

    /// How many records were written, heads included.
    pub(crate) fn len(&self) -> u64 {
        self.chapters.iter().map(|chapter| chapter.heads + chapter.pages.len() as u64).sum()
    }
}
