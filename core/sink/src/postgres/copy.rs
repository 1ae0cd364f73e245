//! COPY: rows into a table where none of them is yet, with less work for the server than any INSERT.
//!
//! In: a batch with the table's columns. Out: how many rows are in; or the server's error, which names no row.
//! COPY cannot pass over a row that is there already, and one bad row fails all. So it is only ever the first attempt: the cursor
//! has moved in the same transaction before it, an error undoes both, and the batch is written again with INSERT, which counts
//! what a rewound cursor repeats and finds each row that is refused. A batch is therefore in once, whatever the table holds.
//! Not here: when it is tried (`writer`), which tables it suits (`inspect`).
//!
//! ```text
//! header    "PGCOPY\n" FF 0D 0A 00 · flags=0 i32 · length of more=0 i32
//! row       columns i16 · one element a column, as in an array (`encode`)
//! end       -1 i16
//! ```

use super::client::{Client, Transaction};
use super::encode::Encoder;
use super::error::{Cause, PostgresError, cause};
use super::table::Table;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: i16 = -1;
/// About how many bytes are sent at a time.
const PIECE: usize = 256 * 1024;

/// What became of the rows.
pub(crate) enum Copied {
    All,
    /// The content of a row ended the transaction; which one is not known.
    SomeRow,
    /// The server passed over some of them.
    Fewer {
        missing: u64,
    },
}

/// Copies some rows in, in order.
pub(crate) async fn copy(
    client: &Client,
    transaction: &mut Transaction,
    table: &Table,
    encoder: &Encoder<'_>,
    rows: &[usize],
) -> Result<Copied, PostgresError> {
    let sent = send(transaction, &table.copy, encoder, rows);
    match client.within("copy rows", sent).await {
        Ok(copied) => match (rows.len() as u64).saturating_sub(copied) {
            0 => Ok(Copied::All),
            missing => Ok(Copied::Fewer { missing }),
        },
        Err(PostgresError::Database { source, .. }) if cause(&source) == Cause::Row => {
            Ok(Copied::SomeRow)
        }
        Err(error) => Err(error),
    }
}

async fn send(
    transaction: &mut Transaction,
    sql: &str,
    encoder: &Encoder<'_>,
    rows: &[usize],
) -> Result<u64, sqlx::Error> {
    let mut copying = transaction.connection.copy_in_raw(sql).await?;
    let mut piece = Vec::with_capacity(PIECE + PIECE / 8);
    piece.extend(HEADER);
    for &row in rows {
        encoder.tuple(row, &mut piece).map_err(sqlx::Error::Encode)?;
        if piece.len() >= PIECE {
            copying.send(piece.as_slice()).await?;
            piece.clear();
        }
    }
    piece.extend(END.to_be_bytes());
    copying.send(piece.as_slice()).await?;
    copying.finish().await
}
