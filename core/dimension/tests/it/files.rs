//! Files as programs leave them: whole, cut, doubled, replaced in the middle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use garam_dimension::FileSource;
use garam_stage::{Told, Wanted};

use crate::plan::{lines, of_file, parse, told};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// The rows of a file, or why there are none: `what` of the failure, and the value that is at fault.
async fn read(path: &Path, format: &str, more: &str) -> Result<Vec<String>, String> {
    let mut source = FileSource::impatient(&of_file(path, format, more)).unwrap();
    let read = told(&mut source).await.map(|rows| lines(&rows));
    read.map_err(|failure| failure.to_string().replace(&path.display().to_string(), "FILE"))
}

#[tokio::test]
async fn every_format_gives_the_same_rows() {
    let place = Place::new();
    let expected = ["1 gold 2.50", "2 null -0.10", "3 a\"b null"].map(str::to_owned).to_vec();
    let csv = "credit,extra,user_id,tier\r\n2.5,x,1,gold\r\n-0.1,,2,\r\n,,3,\"a\"\"b\"\r\n";
    let tsv = "user_id\ttier\tcredit\n1\tgold\t2.50\n2\t\\N\t-0.10\n3\ta\"b\t\n";
    let rows = "{\"user_id\":1,\"tier\":\"gold\",\"credit\":2.5,\"more\":[1]}\n{\"user_id\":2,\"credit\":\"-0.10\"}\n{\"user_id\":3,\"tier\":\"a\\\"b\"}";
    let array = format!(" \n[{}]\n", rows.replace('\n', " ,\n"));
    let bom = format!("\u{feff}{csv}");
    for (content, format) in
        [(csv, "csv"), (&bom, "csv"), (tsv, "tsv"), (rows, "json"), (&array, "json")]
    {
        let path = place.put("users", content);
        assert_eq!(read(&path, format, "").await, Ok(expected.clone()), "{format}: {content}");
    }
    let path = place.put("users", "");
    assert_eq!(read(&path, "json", "").await, Ok(Vec::new()), "no rows are rows too");
}

#[tokio::test]
async fn one_line_that_does_not_fit_refuses_the_file_and_is_named() {
    let place = Place::new();
    let head = "user_id,tier,credit\n1,gold,1\n";
    let cases = [
        ("x,gold,1\n", "line 3 does not fit: type: column user_id: expected bigint, found x"),
        (
            ",gold,1\n",
            "line 3 does not fit: missing_value: column user_id: expected bigint not null, found no value",
        ),
        ("2,gold\n", "line 3 does not fit: shape: 2 cells, expected 3"),
        ("2,gold,1,x\n", "line 3 does not fit: shape: more than 3 cells"),
        (
            "2,gold,1.005\n",
            "line 3 does not fit: range: column credit: expected decimal(18,2), found 1.005: it has too many digits",
        ),
        ("\n", "line 3 does not fit: shape: 1 cells, expected 3"),
        ("2,\"gold\n", "line 3 does not fit: syntax: a quoted cell does not end in this line"),
        ("2,gold,1", "its last line has no end, so it may be cut short: end it with a line feed"),
    ];
    for (line, expected) in cases {
        let path = place.put("users.csv", &format!("{head}{line}"));
        let told = read(&path, "csv", "").await.unwrap_err();
        assert_eq!(told, format!("FILE: {expected}"), "{line:?}");
    }
    let path = place.put("users.csv", "user_id,level\n1,gold\n");
    assert_eq!(
        read(&path, "csv", "").await.unwrap_err(),
        "FILE has no column tier; there is user_id, level"
    );
    let path = place.put("users.json", "[{\"user_id\":1},{\"user_id\":2}");
    let told = read(&path, "json", "").await.unwrap_err();
    assert!(told.starts_with("FILE: line 1 does not fit: syntax: EOF"), "{told}");
    let path = place.put("users.json", "[{\"user_id\":1},{\"user_id\":null}]");
    let told = read(&path, "json", "").await.unwrap_err();
    assert!(told.starts_with("FILE: element 2 does not fit: missing_value"), "{told}");
    let bytes = place.0.path().join("users.csv");
    std::fs::write(&bytes, b"user_id,tier,credit\n1,\xff,1\n").unwrap();
    let told = read(&bytes, "csv", "").await.unwrap_err();
    assert_eq!(told, "FILE: line 2 does not fit: syntax: invalid UTF-8 at byte 2");
}

#[tokio::test]
async fn values_stay_out_of_what_may_be_logged() {
    let place = Place::new();
    let path = place.put("users.csv", "user_id,tier,credit\nsecret,gold,1\n");
    let failure = told(&mut *of_file(&path, "csv", "").source()).await.unwrap_err();
    assert!(failure.to_string().contains("secret") && !failure.what.contains("secret"));
}

#[tokio::test]
async fn a_key_that_is_there_twice_is_named_with_both_rows() {
    let place = Place::new();
    let path = place.put("users.csv", "user_id,tier,credit\n7,a,\n8,b,\n9,c,\n8,d,\n7,e,\n");
    let failure = of_file(&path, "csv", "").try_once().await.unwrap_err();
    let text = failure.to_string().replace(&path.display().to_string(), "FILE");
    assert_eq!(
        text,
        "file FILE: rows 2 and 4 have the same key (user_id): it must name one row: user_id = 8"
    );
    assert!(!failure.what.contains("= 8"));
}

#[tokio::test]
async fn a_file_beyond_its_bounds_is_refused() {
    let place = Place::new();
    let mut content = "user_id,tier,credit\n".to_owned();
    (0..20_000).for_each(|i| content.push_str(&format!("{i},tier-of-some-length,1.50\n")));
    let path = place.put("users.csv", &content);
    let told = read(&path, "csv", "max_rows = 19999").await.unwrap_err();
    assert_eq!(told, "FILE has more than 19999 rows: raise max_rows, or leave rows out");
    assert_eq!(read(&path, "csv", "max_rows = 20000").await.unwrap().len(), 20_000);
    let told = read(&path, "csv", "max_bytes = \"64KiB\"").await.unwrap_err();
    let expected =
        "FILE takes more than 65536 bytes: raise max_bytes, or leave columns and rows out";
    assert_eq!(told, expected);
    let (rows, bytes) = of_file(&path, "csv", "").try_once().await.unwrap();
    assert_eq!(rows, 20_000);
    // Eight bytes, sixteen, nineteen and the offset; no more.
    assert!((20_000 * 47..20_000 * 48).contains(&bytes), "{bytes}");
    let long =
        place.put("long.csv", &format!("user_id,tier,credit\n1,{},1\n", "x".repeat(17 << 20)));
    let told = read(&long, "csv", "").await.unwrap_err();
    assert!(told.starts_with("FILE: line 2 does not fit: too_long"), "{told}");
}

#[tokio::test]
async fn a_source_that_is_not_there_says_what_the_system_says() {
    let place = Place::new();
    let told = read(&place.0.path().join("absent.csv"), "csv", "").await.unwrap_err();
    assert_eq!(told, "cannot read FILE: No such file or directory (os error 2)");
    assert_eq!(
        read(place.0.path(), "csv", "").await.unwrap_err(),
        "cannot read FILE: it is no file"
    );
}

#[tokio::test]
async fn what_did_not_change_is_not_read_and_what_was_replaced_is() {
    let place = Place::new();
    let path = place.put("users.csv", "user_id,tier,credit\n1,a,\n");
    let mut source = of_file(&path, "csv", "").source();
    assert_eq!(lines(&told(&mut *source).await.unwrap()), ["1 a null"]);
    assert!(matches!(source.read(Wanted::IfChanged).await.unwrap(), Told::Unchanged));
    // The same size, and the same time of change as far as `touch` can tell.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let other = place.put("other.csv", "user_id,tier,credit\n1,b,\n");
    std::fs::File::open(&other).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let again = source.read(Wanted::IfChanged).await.unwrap();
    assert!(!matches!(again, Told::Unchanged), "{again:?}");
    assert_eq!(lines(&told(&mut *source).await.unwrap()), ["1 b null"]);
}

/// A file is replaced all the time while it is read: whatever is told is one of the two whole files.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_while_it_is_read_is_one_whole_file() {
    let place = Place::new();
    let content = |tier: &str| {
        let rows = (0..3_000).map(|i| format!("{i},{tier},\n"));
        std::iter::once("user_id,tier,credit\n".to_owned()).chain(rows).collect::<String>()
    };
    let path = place.put("users.csv", &content("a"));
    let contents = [content("b"), content("a")];
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, folder, to) = (Arc::clone(&stop), place.0.path().to_owned(), path.clone());
    let replacing = std::thread::spawn(move || {
        let mut replaced = 0_u32;
        while !stopped.load(Ordering::Relaxed) {
            let beside = folder.join("next.csv");
            std::fs::write(&beside, &contents[(replaced % 2) as usize]).unwrap();
            std::fs::rename(&beside, &to).unwrap();
            replaced += 1;
        }
        replaced
    });
    let mut source = FileSource::impatient(&of_file(&path, "csv", "")).unwrap();
    let mut told = 0;
    for _ in 0..200 {
        use garam_stage::DimensionSource as _;
        match source.read(Wanted::Anyway).await {
            Ok(Told::Rows { rows, .. }) => {
                let lines = lines(&rows);
                let tier = lines[0].split(' ').nth(1).unwrap().to_owned();
                assert_eq!(lines.len(), 3_000);
                assert!(lines.iter().all(|line| line.contains(&format!(" {tier} "))));
                told += 1;
            }
            Ok(other) => panic!("{other:?}"),
            Err(failure) => assert!(failure.what.contains("kept changing"), "{failure}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(replacing.join().unwrap() > 10 && told > 0);
}

#[test]
fn formats_are_those_three() {
    let text = "key = \"id\"\n[columns]\nid = \"int not null\"\n[from.file]\npath = \"x\"\nformat = \"xml\"\n";
    assert!(parse(text).unwrap_err().contains("expected one of `csv`, `tsv`, `json`"));
}
