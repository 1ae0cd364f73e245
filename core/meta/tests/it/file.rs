//! The file itself: made once, refused when it is not ours.

use garam_meta::{Meta, MetaError, VERSION};
use garam_stage::FailureKind;

use crate::Place;

async fn refused(place: &Place) -> MetaError {
    let before = std::fs::read(place.path()).unwrap();
    let error = Meta::open(&place.path()).await.unwrap_err();
    assert!(before == std::fs::read(place.path()).unwrap(), "the file was changed");
    error
}

#[tokio::test]
async fn the_cluster_keeps_its_id() {
    let place = Place::new();
    let first = place.open().await.cluster();
    assert_eq!(place.open().await.cluster(), first);
    assert_ne!(Place::new().open().await.cluster(), first);
    assert_eq!(place.number("select user_version from pragma_user_version").await, VERSION);
}

#[tokio::test]
async fn two_processes_that_make_the_file_agree_on_the_cluster() {
    let place = Place::new();
    let (a, b) = tokio::join!(place.open(), place.open());
    assert_eq!(a.cluster(), b.cluster());
}

#[tokio::test]
async fn a_file_of_a_newer_version_asks_for_an_upgrade() {
    let place = Place::new();
    drop(place.open().await);
    place.execute("pragma journal_mode = delete; pragma user_version = 99").await;
    let error = refused(&place).await;
    assert_eq!(error.kind(), FailureKind::Config);
    let text = error.to_string().replace(&place.path().display().to_string(), "DB");
    assert_eq!(
        text,
        format!(
            "DB has format 99, this build reads up to {VERSION}: upgrade Garam, nothing was changed"
        )
    );
}

#[tokio::test]
async fn a_file_of_another_program_is_left_alone() {
    let place = Place::new();
    place.execute("create table theirs (a)").await;
    let error = refused(&place).await;
    assert!(matches!(error, MetaError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_alone() {
    let place = Place::new();
    std::fs::write(place.path(), vec![7; 4096]).unwrap();
    let error = refused(&place).await;
    assert_eq!(error.kind(), FailureKind::Corrupt, "{error}");

    // One page of a good file overwritten.
    let place = Place::new();
    drop(place.open().await);
    place.execute("pragma journal_mode = delete").await;
    let mut bytes = std::fs::read(place.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes.iter_mut().skip(middle).take(4096).for_each(|byte| *byte = 0xA5);
    std::fs::write(place.path(), bytes).unwrap();
    let error = refused(&place).await;
    assert_eq!(error.kind(), FailureKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_missing_folder_is_an_error() {
    let place = Place::new();
    let path = place.folder.path().join("absent/meta.db");
    let error = Meta::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused, "{error}");
}
