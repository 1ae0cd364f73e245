//! One dimension over its life: what a failure leaves, which of two readings wins, what a start finds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use garam_dimension::{DimensionPlan, Dimensions, Refreshed};
use garam_disk::Fs;
use garam_faulty_disk::{Call, ENOSPC, Effect, Fault, FaultyFs};
use garam_stage::{DimensionSource, Failure, FailureKind, Snapshots, Told, Wanted};
use tokio::sync::oneshot;

use crate::plan::parse;

/// What is told, and when it may be.
type Answer = (Option<oneshot::Receiver<()>>, Result<Told, Failure>);

/// Tells what it is given, each once it may.
struct Scripted {
    answers: VecDeque<Answer>,
    asked: Arc<Mutex<Vec<Wanted>>>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Result<Told, Failure>>) -> Self {
        let answers = answers.into_iter().map(|answer| (None, answer)).collect();
        Self { answers, asked: Arc::default() }
    }

    fn after(gate: oneshot::Receiver<()>, answer: Result<Told, Failure>) -> Self {
        Self { answers: VecDeque::from([(Some(gate), answer)]), asked: Arc::default() }
    }
}

#[async_trait]
impl DimensionSource for Scripted {
    fn label(&self) -> String {
        "script".into()
    }

    async fn read(&mut self, wanted: Wanted) -> Result<Told, Failure> {
        self.asked.lock().unwrap().push(wanted);
        let (gate, answer) = self.answers.pop_front().unwrap();
        if let Some(gate) = gate {
            gate.await.unwrap();
        }
        answer
    }
}

fn plan() -> DimensionPlan {
    let text = "key = \"id\"\n[columns]\nid = \"bigint not null\"\ntier = \"varchar\"\n[from.file]\npath = \"x\"\nformat = \"csv\"\n";
    parse(text).unwrap()
}

fn rows(ids: &[i64], tier: &str) -> Result<Told, Failure> {
    let tiers = vec![tier; ids.len()];
    let columns: Vec<arrow_array::ArrayRef> =
        vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(tiers))];
    let rows = RecordBatch::try_new(plan().shape.dimension().schema.clone(), columns).unwrap();
    Ok(Told::Rows { rows, source_us: None })
}

fn away() -> Result<Told, Failure> {
    Err(Failure::new(FailureKind::Unreachable, "cannot connect"))
}

fn open(fs: &FaultyFs) -> Dimensions {
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    Dimensions::open(&disk, Path::new("/data"), &[plan()], Snapshots::default()).unwrap()
}

fn disk() -> FaultyFs {
    let fs = FaultyFs::new(3);
    fs.create_dir(Path::new("/data")).unwrap();
    fs
}

#[tokio::test]
async fn a_failure_keeps_the_last_good_rows_and_is_told_until_a_success() {
    let all = open(&disk());
    let shelf = &all.shelves[0];
    let refused = Err(Failure::new(FailureKind::Data, "line 7 does not fit"));
    let script = [rows(&[1, 2], "a"), away(), refused, rows(&[2, 1], "a"), Ok(Told::Unchanged)];
    let mut source = Scripted::new(script);
    let first = shelf.refresh(&mut source, Wanted::IfChanged).await.unwrap();
    assert!(matches!(first, Refreshed::Swapped { rows: 2, .. }));
    let before = all.snapshots().now();
    for expected in ["cannot connect", "line 7 does not fit"] {
        shelf.refresh(&mut source, Wanted::IfChanged).await.unwrap_err();
        let figures = shelf.figures();
        assert_eq!(figures.trouble.unwrap().what, expected);
        assert_eq!(all.snapshots().now().number, before.number, "nothing is swapped");
    }
    assert_eq!(shelf.figures().trouble.unwrap().tries, 2);
    // The same rows in another order are the same snapshot.
    let same = shelf.refresh(&mut source, Wanted::IfChanged).await.unwrap();
    assert_eq!(same, Refreshed::Same);
    shelf.refresh(&mut source, Wanted::IfChanged).await.unwrap();
    let figures = shelf.figures();
    assert!(figures.trouble.is_none());
    assert_eq!((figures.ok, figures.failed), (3, 2));
    let asked = source.asked.lock().unwrap().clone();
    let after_failures =
        [Wanted::IfChanged, Wanted::IfChanged, Wanted::Anyway, Wanted::Anyway, Wanted::IfChanged];
    assert_eq!(asked, after_failures, "what was refused is read again although it did not change");
}

#[tokio::test]
async fn a_set_that_was_taken_for_a_batch_stays_as_it_was() {
    let all = open(&disk());
    let mut source = Scripted::new([rows(&[1], "a"), rows(&[1], "b")]);
    all.shelves[0].refresh(&mut source, Wanted::Anyway).await.unwrap();
    let batch = all.snapshots().now();
    let first = batch.get("dim_users").unwrap().id;
    all.shelves[0].refresh(&mut source, Wanted::Anyway).await.unwrap();
    assert_eq!(batch.get("dim_users").unwrap().id, first);
    let next = all.snapshots().now();
    assert!(next.number > batch.number && next.get("dim_users").unwrap().id != first);
}

#[tokio::test]
async fn of_two_readings_that_race_the_one_that_began_later_wins() {
    let fs = disk();
    let all = open(&fs);
    let shelf = Arc::clone(&all.shelves[0]);
    let (go, gate) = oneshot::channel();
    let slow = tokio::spawn({
        let shelf = Arc::clone(&shelf);
        let mut source = Scripted::after(gate, rows(&[1], "old"));
        async move { shelf.refresh(&mut source, Wanted::Anyway).await.unwrap() }
    });
    // The slow one has begun when its source is asked, before which nothing yields.
    tokio::task::yield_now().await;
    let mut fast = Scripted::new([rows(&[1], "new")]);
    let swapped = shelf.refresh(&mut fast, Wanted::Anyway).await.unwrap();
    assert!(matches!(swapped, Refreshed::Swapped { .. }));
    let newest = all.snapshots().now().get("dim_users").unwrap().id;
    go.send(()).unwrap();
    assert_eq!(slow.await.unwrap(), Refreshed::Overtaken);
    assert_eq!(all.snapshots().now().get("dim_users").unwrap().id, newest);
    assert_eq!(open(&fs.crash()).snapshots().now().get("dim_users").unwrap().id, newest);
}

#[tokio::test]
async fn a_start_finds_the_last_good_rows_with_their_age_while_the_source_is_away() {
    let fs = disk();
    let all = open(&fs);
    all.shelves[0].refresh(&mut Scripted::new([rows(&[1], "a")]), Wanted::Anyway).await.unwrap();
    let kept = all.snapshots().now().get("dim_users").unwrap().clone();
    let again = open(&fs.crash());
    let found = again.snapshots().now().get("dim_users").unwrap().clone();
    assert_eq!((found.id, found.loaded_us), (kept.id, kept.loaded_us));
    again.present(&["dim_users".into()]).await;
    again.shelves[0].refresh(&mut Scripted::new([away()]), Wanted::IfChanged).await.unwrap_err();
    let figures = again.shelves[0].figures();
    assert!(figures.is_restored && figures.age.is_some() && figures.trouble.is_some());
}

#[tokio::test]
async fn whoever_needs_a_dimension_waits_until_it_was_read_once() {
    let all = open(&disk());
    let needed = ["dim_users".to_owned()];
    all.present(&[]).await;
    let mut waiting = Box::pin(all.present(&needed));
    assert!(is_pending(waiting.as_mut()).await);
    let mut source = Scripted::new([away(), rows(&[], "a")]);
    all.shelves[0].refresh(&mut source, Wanted::Anyway).await.unwrap_err();
    assert!(is_pending(waiting.as_mut()).await);
    all.shelves[0].refresh(&mut source, Wanted::Anyway).await.unwrap();
    waiting.await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_used() {
    let fs = disk();
    let all = open(&fs);
    let shelf = &all.shelves[0];
    let mut source = Scripted::new([rows(&[1], "a"), rows(&[1], "b"), rows(&[1], "b")]);
    shelf.refresh(&mut source, Wanted::Anyway).await.unwrap();
    let before = all.snapshots().now().number;
    fs.breaks(Fault::always(Call::Write, "dim_users", Effect::Error(ENOSPC)));
    let failure = shelf.refresh(&mut source, Wanted::Anyway).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Full);
    assert_eq!(all.snapshots().now().number, before);
    fs.heals();
    shelf.refresh(&mut source, Wanted::IfChanged).await.unwrap();
    assert!(all.snapshots().now().number > before);
}

#[tokio::test]
async fn a_key_that_is_null_or_there_twice_is_refused_whoever_tells_it() {
    let all = open(&disk());
    let shelf = &all.shelves[0];
    let nullable = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("tier", DataType::Utf8, true),
    ]);
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec!["a", "b"])),
    ];
    let rows_with_null = RecordBatch::try_new(Arc::new(nullable), columns).unwrap();
    let null = Ok(Told::Rows { rows: rows_with_null, source_us: None });
    let mut source = Scripted::new([null, rows(&[3, 1, 3], "a")]);
    let failure = shelf.refresh(&mut source, Wanted::Anyway).await.unwrap_err();
    assert_eq!(failure.to_string(), "script: row 2 has no id, which is part of the key");
    let failure = shelf.refresh(&mut source, Wanted::Anyway).await.unwrap_err();
    assert!(failure.to_string().ends_with("it must name one row: id = 3"), "{failure}");
    let shown = shelf.figures().trouble.unwrap().what;
    assert!(!shown.contains("id = 3"), "the status shows no value: {shown}");
    assert!(shelf.figures().snapshot.is_none());
}

/// Asks once.
async fn is_pending(mut future: std::pin::Pin<&mut (dyn Future<Output = ()> + Send)>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}
