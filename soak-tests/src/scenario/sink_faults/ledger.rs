//! The destination as this scenario furnishes it, and what it holds in the end.
//!
//! ```text
//! soak      what the pipeline writes: an upsert by writer and number; numbers that POISON divides are refused by the table
//! applied   how often each record's row was written: a trigger counts, so a batch that is applied twice is seen
//! totals    the same per writer, one row each: what two sessions can lock in opposite order
//! ```
//!
//! Promise: counts are made by the database, in the transaction that writes; they are exact only if every batch is in once.

use std::collections::HashMap;

use anyhow::Context as _;

use crate::book::{Book, HEAD, Id};
use crate::generate::WRITERS;
use crate::generate::record::{Members, id_of, text_digest};
use crate::ground::Aside;
use crate::server::{Db, Server, Session};

/// Numbers that the table refuses.
const POISON: u64 = 1_009;
/// What is copied and put back.
const TABLES: [&str; 4] = ["soak", "applied", "totals", "_garam_cursors"];

/// What was found, by id.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: u64,
    pub(super) quarantined: u64,
    pub(super) poison: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) altered: u64,
    pub(super) misjudged: u64,
    pub(super) miscounted: u64,
    pub(super) examples: Vec<String>,
}

fn is_poison(id: Id) -> bool {
    id.seq != HEAD && id.seq.is_multiple_of(POISON)
}

/// Makes the counting tables before the core runs.
pub(super) async fn prepare(session: &mut Session) -> anyhow::Result<()> {
    session
        .run("create table applied (writer int, seq bigint, n int, primary key (writer, seq))")
        .await?;
    session.run("create table totals (writer int primary key, n bigint)").await?;
    for writer in 0..WRITERS {
        session.run(&format!("insert into totals values ({writer}, 0)")).await?;
    }
    Ok(())
}

/// What belongs to the pipeline's table, once the core has made that.
pub(super) async fn furnish(db: Db, session: &mut Session) -> anyhow::Result<()> {
    if db == Db::Sqlite {
        session
            .run(&format!(
                "create trigger poison before insert on soak when new.seq > 0 and new.seq % {POISON} = 0 \
                 begin select raise(abort, 'poison'); end"
            ))
            .await?;
    } else {
        session
            .run(&format!(
                "alter table soak add constraint poison check (seq % {POISON} <> 0 or seq = 0)"
            ))
            .await?;
    }
    count(db, session).await
}

/// The triggers that count.
async fn count(db: Db, session: &mut Session) -> anyhow::Result<()> {
    let total = "update totals set n = n + 1 where writer = new.writer;";
    if db == Db::Postgres {
        return session
            .run(&format!(
                "create or replace function count_it() returns trigger language plpgsql as $$ begin if new.seq > 0 then \
                 insert into applied values (new.writer, new.seq, 1) on conflict (writer, seq) do update set n = applied.n + 1; \
                 {total} end if; return null; end $$; \
                 create trigger counts after insert or update on soak for each row execute function count_it()"
            ))
            .await;
    }
    for event in ["insert", "update"] {
        let sql = match db {
            Db::Sqlite => format!(
                "create trigger counts_{event} after {event} on soak when new.seq > 0 begin \
                 insert or ignore into applied values (new.writer, new.seq, 0); \
                 update applied set n = n + 1 where writer = new.writer and seq = new.seq; {total} end"
            ),
            _ => format!(
                "create trigger counts_{event} after {event} on soak for each row begin if new.seq > 0 then \
                 insert into applied values (new.writer, new.seq, 1) on duplicate key update n = n + 1; \
                 {total} end if; end"
            ),
        };
        session.run(&sql).await?;
    }
    Ok(())
}

/// Copies everything; nobody writes meanwhile.
pub(super) async fn keep(session: &mut Session) -> anyhow::Result<()> {
    for table in TABLES {
        session.run(&format!("create table kept_{table} as select * from {table}")).await?;
    }
    Ok(())
}

/// Puts the copy in the place of everything that came since.
pub(super) async fn restore(db: Db, session: &mut Session) -> anyhow::Result<()> {
    let drop = match db {
        Db::Postgres => "drop trigger counts on soak",
        _ => "drop trigger counts_insert; drop trigger counts_update",
    };
    session.run(drop).await?;
    for table in TABLES {
        session.run(&format!("delete from {table}")).await?;
        session.run(&format!("insert into {table} select * from kept_{table}")).await?;
    }
    count(db, session).await
}

/// Compares everything with the book, by id and by value.
pub(super) async fn judge(server: &Server, asides: &[Aside], book: &Book) -> anyhow::Result<Found> {
    let mut session = server.session().await?;
    let rows = session.rows("select writer, seq, weight, payload from soak where seq > 0").await?;
    let applied = session.rows("select writer, seq, n from applied").await?;
    let totals = session.rows("select writer, n from totals").await?;
    let mut found = Found::default();
    let mut seen: HashMap<Id, u32> = HashMap::new();
    for row in &rows {
        let [writer, seq, weight, payload] = row.as_slice() else { continue };
        let id = Id { writer: writer.parse()?, seq: seq.parse()? };
        let digest = Members { id, weight: weight.parse()?, payload }.digest();
        *seen.entry(id).or_default() += 1;
        found.rows += 1;
        match book.page(id) {
            Some(page) if page.flawed || is_poison(id) => found.blame("misjudged", id),
            Some(page) if page.digest == digest => {}
            _ => found.blame("altered", id),
        }
    }
    for record in asides.iter().flat_map(lines) {
        found.quarantined += 1;
        let id = id_of(record).context("a record without an id was put aside")?;
        *seen.entry(id).or_default() += 1;
        let Some(page) = book.page(id) else {
            found.blame("altered", id);
            continue;
        };
        found.poison += u64::from(!page.flawed);
        if !page.flawed && !is_poison(id) {
            found.blame("misjudged", id);
        } else if page.digest
            != if page.flawed { text_digest(record) } else { digest_of(id, record)? }
        {
            found.blame("altered", id);
        }
    }
    found.compare(book, &seen);
    found.recount(book, &applied, &totals)?;
    Ok(found)
}

/// A block that was put aside whole holds one record a line.
fn lines(aside: &Aside) -> impl Iterator<Item = &str> {
    let whole = aside.index.is_none();
    let one = (!whole).then_some(aside.record.as_str());
    one.into_iter().chain(whole.then(|| aside.record.lines()).into_iter().flatten())
}

/// Of a good record, from its line.
fn digest_of(id: Id, record: &str) -> anyhow::Result<u64> {
    let value: serde_json::Value = serde_json::from_str(record)?;
    let weight = value["weight"].as_i64().context("no weight")?;
    let payload = value["payload"].as_str().context("no payload")?;
    Ok(Members { id, weight: i32::try_from(weight)?, payload }.digest())
}

impl Found {
    pub(super) fn errors(&self) -> u64 {
        self.lost + self.duplicated + self.altered + self.misjudged + self.miscounted
    }

    fn blame(&mut self, wrong: &'static str, id: Id) {
        let count = match wrong {
            "lost" => &mut self.lost,
            "duplicated" => &mut self.duplicated,
            "misjudged" => &mut self.misjudged,
            "miscounted" => &mut self.miscounted,
            _ => &mut self.altered,
        };
        *count += 1;
        if *count <= 5 {
            self.examples.push(format!("{wrong}: {id}"));
        }
    }

    /// Every record is in one place, once.
    fn compare(&mut self, book: &Book, seen: &HashMap<Id, u32>) {
        for (writer, chapter) in (0..).zip(&book.chapters) {
            for (seq, _) in chapter.pages() {
                let id = Id { writer, seq };
                match seen.get(&id).copied().unwrap_or(0) {
                    0 => self.blame("lost", id),
                    1 => {}
                    _ => self.blame("duplicated", id),
                }
            }
        }
    }

    /// Every row was written once, and every writer's sum says so too.
    fn recount(
        &mut self,
        book: &Book,
        applied: &[Vec<String>],
        totals: &[Vec<String>],
    ) -> anyhow::Result<()> {
        let mut sums: HashMap<u32, u64> = HashMap::new();
        for row in applied {
            let [writer, seq, n] = row.as_slice() else { continue };
            let id = Id { writer: writer.parse()?, seq: seq.parse()? };
            if n != "1" {
                self.blame("miscounted", id);
            }
            *sums.entry(id.writer).or_default() += 1;
        }
        for row in totals {
            let [writer, n] = row.as_slice() else { continue };
            let (writer, n): (u32, u64) = (writer.parse()?, n.parse()?);
            let good = |(seq, page): &(u64, crate::book::Page)| {
                !page.flawed && !is_poison(Id { writer, seq: *seq })
            };
            let expect = book.chapter(writer).map_or(0, |c| c.pages().filter(good).count() as u64);
            if n != expect || sums.get(&writer).copied().unwrap_or(0) != expect {
                self.blame("miscounted", Id { writer, seq: HEAD });
                self.examples.push(format!("writer {writer}: {n} counted, {expect} expected"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Chapter;
    use crate::generate::record::Flaw;

    /// A destination with all of a writer's records, the third of which breaks the contract and the last of which is poison.
    async fn world(folder: &std::path::Path) -> (Server, Vec<Aside>, Book) {
        let server = Server::start(Db::Sqlite, folder).unwrap();
        let mut session = server.session().await.unwrap();
        let table = "create table soak (writer int, seq bigint, weight int, payload text)";
        session.run(table).await.unwrap();
        prepare(&mut session).await.unwrap();
        furnish(Db::Sqlite, &mut session).await.unwrap();
        let (mut chapter, mut asides) = (Chapter::default(), Vec::new());
        session.run("begin").await.unwrap();
        for seq in 1..=POISON {
            let flaw = (seq == 3).then_some(Flaw::Type);
            let members = Members { id: Id { writer: 0, seq }, weight: 1, payload: "x" };
            let (line, page) = members.line(flaw);
            chapter.note(seq, page);
            if flaw.is_some() || seq == POISON {
                let record = String::from_utf8(line).unwrap().trim_end().to_owned();
                asides.push(Aside { offset: 0, index: Some(0), reason: String::new(), record });
                continue;
            }
            let sql = format!("insert into soak values (0, {seq}, 1, 'x')");
            session.run(&sql).await.unwrap();
        }
        session.run("commit").await.unwrap();
        let poison = format!("insert into soak values (0, {POISON}, 1, 'x')");
        assert!(session.run(&poison).await.is_err(), "the table refuses it");
        let others = (1..WRITERS).map(|_| Chapter::default());
        (server, asides, Book { chapters: std::iter::once(chapter).chain(others).collect() })
    }

    #[tokio::test]
    async fn every_kind_of_wrong_is_seen() {
        // Damage, then lost, duplicated, altered, misjudged, miscounted.
        let cases: [(&str, [u64; 5]); 6] = [
            ("select 1", [0; 5]),
            ("delete from soak where seq = 5", [1, 0, 0, 0, 0]),
            ("update applied set n = 2 where seq = 5", [0, 0, 0, 0, 1]),
            ("update totals set n = n + 1 where writer = 0", [0, 0, 0, 0, 1]),
            (
                "drop trigger counts_update; update soak set weight = 2 where seq = 5",
                [0, 0, 1, 0, 0],
            ),
            // What was put aside is there as a row, too.
            ("drop trigger counts_insert; insert into soak values (0, 3, 1, 'x')", [0, 1, 0, 1, 0]),
        ];
        for (damage, expect) in cases {
            let folder = tempfile::tempdir().unwrap();
            let (server, asides, book) = world(folder.path()).await;
            server.session().await.unwrap().run(damage).await.unwrap();
            let found = judge(&server, &asides, &book).await.unwrap();
            let errors =
                [found.lost, found.duplicated, found.altered, found.misjudged, found.miscounted];
            assert_eq!(errors, expect, "{damage}: {:?}", found.examples);
            assert_eq!((found.quarantined, found.poison), (2, 1));
        }
    }
}
