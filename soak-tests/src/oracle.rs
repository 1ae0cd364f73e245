//! The judge: what is in the destination and in the quarantine against what was generated, by id.
//!
//! In: a [`Book`], the destination's rows in the order of their insertion, the quarantined records. Out: a [`Judgement`].
//! Promise: each record counts by its id, never by totals, so that one loss and one repetition do not cancel out; the first
//! few ids of each kind of error are named. Pure: no database, no clock.
//!
//! | count | a record that |
//! |---|---|
//! | `lost` | was generated and is in neither place |
//! | `duplicated` | is there once more than it should (twice as a row, or as a row and in the quarantine) |
//! | `reordered` | came behind a later one of the same writer |
//! | `altered` | has other content than was written, or was never written |
//! | `misjudged` | is good and was quarantined, or broken and was delivered |

use std::fmt;

use crate::book::{Book, HEAD, Id};
use crate::generate::record::{Members, id_of, text_digest};

/// How many examples of a kind of error are named.
const EXAMPLES: usize = 8;

/// A row as the destination has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) writer: i64,
    pub(crate) seq: i64,
    pub(crate) weight: i64,
    pub(crate) digest: String,
    pub(crate) payload: String,
}

/// What the judge found. `delivered` and `quarantined` count what is there, the errors count ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) delivered: u64,
    pub(crate) quarantined: u64,
    pub(crate) lost: u64,
    /// Of the lost records that have an id, in their files.
    pub(crate) lost_bytes: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) altered: u64,
    pub(crate) misjudged: u64,
    pub(crate) examples: Vec<String>,
}

impl Judgement {
    /// What is missing is no error: it was given up, and somebody else has looked at it.
    pub(crate) fn forgive_lost(&mut self) {
        (self.lost, self.lost_bytes) = (0, 0);
        self.examples.retain(|example| !example.starts_with("lost:"));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Lost,
    Duplicated,
    Reordered,
    Altered,
    Misjudged,
}

/// How often a record was seen.
#[derive(Debug, Clone, Copy, Default)]
struct Sightings {
    rows: u32,
    asides: u32,
}

/// What was seen of one writer.
#[derive(Debug, Default)]
struct Track {
    records: Vec<Sightings>,
    heads: u64,
    newest: u64,
}

/// Collects what is there; [`Judge::finish`] compares.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    book: &'a Book,
    tracks: Vec<Track>,
    found: Judgement,
    named: [usize; 5],
}

impl<'a> Judge<'a> {
    pub(crate) fn new(book: &'a Book) -> Self {
        let tracks = book.chapters.iter().map(|chapter| Track {
            records: vec![Sightings::default(); chapter.pages().count()],
            ..Track::default()
        });
        Self { book, tracks: tracks.collect(), found: Judgement::default(), named: [0; 5] }
    }

    /// The next row in the order of insertion.
    pub(crate) fn row(&mut self, row: &Row) {
        self.found.delivered += 1;
        let Some(id) = row.id() else {
            return self.blame(Wrong::Altered, format_args!("row {}/{}", row.writer, row.seq));
        };
        if id.seq == HEAD {
            return self.head(id, row);
        }
        let (Some(page), Some(track)) = (self.book.page(id), track_of(&mut self.tracks, id.writer))
        else {
            return self.blame(Wrong::Altered, format_args!("{id} was never written"));
        };
        let Some(sightings) = at(&mut track.records, id.seq) else { return };
        sightings.rows += 1;
        let first = sightings.rows + sightings.asides == 1;
        let late = first && id.seq < track.newest;
        let newest = track.newest;
        track.newest = newest.max(id.seq);
        if !first {
            self.blame(Wrong::Duplicated, format_args!("{id} as a row again"));
        }
        if late {
            self.blame(Wrong::Reordered, format_args!("{id} behind number {newest}"));
        }
        if page.flawed {
            self.blame(Wrong::Misjudged, format_args!("{id} is broken and was delivered"));
        } else if !row.says(page.digest) {
            self.blame(Wrong::Altered, format_args!("{id} has other content"));
        }
    }

    /// A quarantined record, as a program shows its bytes.
    pub(crate) fn aside(&mut self, text: &str) {
        self.found.quarantined += 1;
        let Some(id) = id_of(text) else {
            let start: String = text.chars().take(60).collect();
            return self
                .blame(Wrong::Altered, format_args!("quarantined without an id: {start:?}"));
        };
        let (Some(page), Some(track)) = (self.book.page(id), track_of(&mut self.tracks, id.writer))
        else {
            return self.blame(Wrong::Altered, format_args!("{id} was never written"));
        };
        let Some(sightings) = at(&mut track.records, id.seq) else { return };
        sightings.asides += 1;
        if sightings.rows + sightings.asides > 1 {
            self.blame(Wrong::Duplicated, format_args!("{id} in the quarantine again"));
        }
        if !page.flawed {
            self.blame(Wrong::Misjudged, format_args!("{id} is good and was quarantined"));
        } else if page.digest != text_digest(text) {
            self.blame(Wrong::Altered, format_args!("{id} has other content in the quarantine"));
        }
    }

    /// Heads have no id: they are counted.
    fn head(&mut self, id: Id, row: &Row) {
        let expected = self.book.chapter(id.writer).map(|chapter| chapter.head_digest());
        if !expected.is_some_and(|digest| row.says(digest)) {
            return self.blame(Wrong::Altered, format_args!("head of writer {}", id.writer));
        }
        if let Some(track) = track_of(&mut self.tracks, id.writer) {
            track.heads += 1;
        }
    }

    /// What is missing is known only now.
    pub(crate) fn finish(mut self) -> Judgement {
        let tracks = std::mem::take(&mut self.tracks);
        for ((writer, chapter), track) in (0..).zip(&self.book.chapters).zip(&tracks) {
            for ((seq, page), sightings) in chapter.pages().zip(&track.records) {
                if sightings.rows + sightings.asides == 0 {
                    self.found.lost_bytes += u64::from(page.bytes);
                    self.blame(Wrong::Lost, format_args!("{}", Id { writer, seq }));
                }
            }
            let heads = chapter.heads();
            for _ in track.heads..heads {
                self.blame(Wrong::Lost, format_args!("a head of writer {writer}"));
            }
            for _ in heads..track.heads {
                self.blame(Wrong::Duplicated, format_args!("a head of writer {writer}"));
            }
        }
        self.found
    }

    fn blame(&mut self, wrong: Wrong, what: fmt::Arguments<'_>) {
        let (count, name) = match wrong {
            Wrong::Lost => (&mut self.found.lost, "lost"),
            Wrong::Duplicated => (&mut self.found.duplicated, "duplicated"),
            Wrong::Reordered => (&mut self.found.reordered, "reordered"),
            Wrong::Altered => (&mut self.found.altered, "altered"),
            Wrong::Misjudged => (&mut self.found.misjudged, "misjudged"),
        };
        *count += 1;
        let named = &mut self.named[wrong as usize];
        *named += 1;
        if *named <= EXAMPLES {
            self.found.examples.push(format!("{name}: {what}"));
        }
    }
}

impl Row {
    fn id(&self) -> Option<Id> {
        Some(Id { writer: u32::try_from(self.writer).ok()?, seq: u64::try_from(self.seq).ok()? })
    }

    /// Whether the content, and the digest that travelled with it, are what was written.
    fn says(&self, digest: u64) -> bool {
        let (Some(id), Ok(weight)) = (self.id(), i32::try_from(self.weight)) else { return false };
        let content = Members { id, weight, payload: &self.payload }.digest();
        content == digest && self.digest == format!("{digest:016x}")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of writer {}", self.seq, self.writer)
    }
}

fn track_of(tracks: &mut [Track], writer: u32) -> Option<&mut Track> {
    tracks.get_mut(usize::try_from(writer).ok()?)
}

fn at(records: &mut [Sightings], seq: u64) -> Option<&mut Sightings> {
    records.get_mut(usize::try_from(seq.checked_sub(1)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Chapter;
    use crate::generate::record::Flaw;

    /// Two writers: records 1 to 5 of writer 0, record 3 broken; one head and records 1 to 2 of writer 1.
    fn world() -> (Book, Vec<Row>, Vec<String>) {
        let mut book = Book::default();
        let (mut rows, mut asides) = (Vec::new(), Vec::new());
        for (writer, numbers) in [(0, 1..=5), (1, 0..=2)] {
            let mut chapter = Chapter::default();
            for seq in numbers {
                let id = Id { writer, seq };
                let payload = format!("text {seq}");
                let members = Members { id, weight: -7, payload: &payload };
                let flaw = (id == Id { writer: 0, seq: 3 }).then_some(Flaw::Utf8);
                let (line, page) = members.line(flaw);
                chapter.note(seq, page);
                match flaw {
                    Some(_) => asides.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
                    None => rows.push(row(members)),
                }
            }
            book.chapters.push(chapter);
        }
        (book, rows, asides)
    }

    fn row(members: Members<'_>) -> Row {
        Row {
            writer: i64::from(members.id.writer),
            seq: i64::try_from(members.id.seq).unwrap(),
            weight: i64::from(members.weight),
            digest: format!("{:016x}", members.digest()),
            payload: members.payload.into(),
        }
    }

    /// Damages what is seen and expects exactly these counts: lost, duplicated, reordered, altered, misjudged.
    fn check(damage: impl Fn(&mut Vec<Row>, &mut Vec<String>), expected: [u64; 5]) -> Judgement {
        let (book, mut rows, mut asides) = world();
        damage(&mut rows, &mut asides);
        let mut judge = Judge::new(&book);
        rows.iter().for_each(|row| judge.row(row));
        asides.iter().for_each(|text| judge.aside(text));
        let found = judge.finish();
        let errors =
            [found.lost, found.duplicated, found.reordered, found.altered, found.misjudged];
        assert_eq!(errors, expected, "{found:?}");
        assert_eq!(found.examples.len() as u64, errors.iter().sum::<u64>(), "each is named");
        found
    }

    #[test]
    fn what_is_whole_is_not_blamed() {
        let found = check(|_, _| {}, [0; 5]);
        assert_eq!((found.delivered, found.quarantined), (7, 1));
    }

    #[test]
    fn a_missing_row_is_lost() {
        let found = check(|rows, _| drop(rows.remove(1)), [1, 0, 0, 0, 0]);
        assert_eq!(
            found.lost_bytes,
            u64::from(world().0.page(Id { writer: 0, seq: 2 }).unwrap().bytes)
        );
        assert_eq!(found.examples, ["lost: record 2 of writer 0"]);
    }

    #[test]
    fn a_missing_quarantined_record_is_lost() {
        check(|_, asides| asides.clear(), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_row_that_comes_again_is_duplicated_but_not_reordered() {
        check(|rows, _| rows.push(rows[0].clone()), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn one_loss_and_one_repetition_do_not_cancel_out() {
        check(|rows, _| rows[0] = rows[1].clone(), [1, 1, 0, 0, 0]);
    }

    #[test]
    fn a_record_in_both_places_is_duplicated_and_misjudged() {
        let good_aside = |rows: &mut Vec<Row>, asides: &mut Vec<String>| {
            let members = Members { id: rows[0].id().unwrap(), weight: -7, payload: "text 1" };
            asides.push(String::from_utf8(members.line(None).0).unwrap());
        };
        check(good_aside, [0, 1, 0, 0, 1]);
    }

    #[test]
    fn a_broken_record_that_was_delivered_is_misjudged() {
        let members = Members { id: Id { writer: 0, seq: 3 }, weight: -7, payload: "text 3" };
        check(
            |rows, asides| {
                asides.clear();
                rows.insert(2, row(members));
            },
            [0, 0, 0, 0, 1],
        );
    }

    #[test]
    fn two_rows_in_the_wrong_order_are_reordered_within_their_writer_only() {
        check(|rows, _| rows.swap(0, 1), [0, 0, 1, 0, 0]);
        check(|rows, _| rows.rotate_left(4), [0; 5]);
    }

    #[test]
    fn changed_content_is_altered_whichever_member_it_is() {
        check(|rows, _| rows[0].payload.push('!'), [0, 0, 0, 1, 0]);
        check(|rows, _| rows[0].weight += 1, [0, 0, 0, 1, 0]);
        check(|rows, _| rows[0].digest.push('0'), [0, 0, 0, 1, 0]);
        check(|_, asides| asides[0].push('x'), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn what_was_never_written_is_altered() {
        check(|rows, _| rows[0].seq = 99, [1, 0, 0, 1, 0]);
        check(|rows, _| rows[0].writer = -1, [1, 0, 0, 1, 0]);
        check(|_, asides| asides.push("no id".into()), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn heads_are_counted() {
        let head = |rows: &Vec<Row>| rows.iter().position(|row| row.seq == 0).unwrap();
        check(|rows, _| drop(rows.remove(head(rows))), [1, 0, 0, 0, 0]);
        check(|rows, _| rows.push(rows[head(rows)].clone()), [0, 1, 0, 0, 0]);
    }
}
