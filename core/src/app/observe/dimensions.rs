//! What is told about dimensions: how old their rows are, why the newest try failed, who waits for them.

use garam_dimension::{Figures, Refreshed};
use garam_stage::Missing;

use super::Observed;
use crate::actors::dimension::DimensionRoom;
use crate::admin::answers::{DimensionAnswer, RefreshAnswer};
use crate::admin::metrics::{Exposition, Kind};

impl Observed {
    pub(super) fn dimension(&self, room: &DimensionRoom) -> DimensionAnswer {
        let (shelf, figures) = (room.shelf(), room.shelf().figures());
        let plan = shelf.plan();
        let declared = plan.shape.dimension();
        let snapshot = figures.snapshot.as_deref();
        let exhibits = self.shown.now();
        let used =
            exhibits.pipelines.iter().filter(|watched| watched.joins.contains(&declared.name));
        DimensionAnswer {
            name: declared.name.clone(),
            source: plan.source.label(),
            state: state(&figures).to_owned(),
            rows: snapshot.map(|snapshot| snapshot.rows.num_rows() as u64),
            bytes: snapshot.map(|_| figures.bytes),
            snapshot: snapshot.map(|snapshot| snapshot.id.to_string()),
            loaded_at: snapshot.and_then(|snapshot| time(snapshot.loaded_us)),
            source_at: snapshot.and_then(|snapshot| time(snapshot.source_us?)),
            age_s: figures.age.map(|age| age.as_secs_f64()),
            from_disk: figures.is_restored,
            refresh_s: plan.refresh.as_secs(),
            key: declared.key.clone(),
            columns: declared
                .schema
                .fields()
                .iter()
                .map(|field| {
                    let nullable = if field.is_nullable() { "" } else { " not null" };
                    format!("{} {}{nullable}", field.name(), field.data_type())
                })
                .collect(),
            missing: match declared.missing {
                Missing::Null => "null",
                Missing::Default => "default",
                Missing::Quarantine => "quarantine",
            }
            .to_owned(),
            pipelines: used.map(|watched| watched.name.clone()).collect(),
            refreshed: figures.ok,
            failed: figures.failed,
            error: figures.trouble.map(|trouble| trouble.what),
        }
    }

    /// What an operator must act on: a dimension that cannot be read, and the pipelines that wait for one.
    pub(super) fn dimension_troubles(&self) -> Vec<String> {
        let (mut why, exhibits) = (Vec::new(), self.shown.now());
        for room in &self.dimensions {
            let (name, figures) = (room.shelf().name(), room.shelf().figures());
            let waiting =
                exhibits.pipelines.iter().filter(|watched| watched.joins.contains(&name.into()));
            let waiting: Vec<&str> = waiting.map(|watched| watched.name.as_str()).collect();
            let error = figures.trouble.as_ref().map_or("it is being read", |t| t.what.as_str());
            match (figures.age, &figures.trouble) {
                (Some(_), None) => {}
                (Some(age), Some(_)) => why.push(format!(
                    "dimension {name} cannot be refreshed, its last good rows are used, {} s old: {error}",
                    age.as_secs()
                )),
                (None, _) if waiting.is_empty() => {
                    why.push(format!("dimension {name} was never read: {error}"));
                }
                (None, _) => why.push(format!(
                    "dimension {name} was never read, so pipeline {} waits: {error}; remove the cause, then it goes on by itself",
                    waiting.join(", ")
                )),
            }
        }
        why
    }

    pub(super) async fn refresh_dimension(
        &self,
        name: &str,
    ) -> Result<Option<RefreshAnswer>, String> {
        let Some(room) = self.dimensions.iter().find(|room| room.shelf().name() == name) else {
            return Ok(None);
        };
        let refreshed = room.refresh().await?;
        let snapshot = room.shelf().figures().snapshot;
        Ok(Some(RefreshAnswer {
            name: name.to_owned(),
            swapped: matches!(refreshed, Refreshed::Swapped { .. }),
            rows: snapshot.as_ref().map(|snapshot| snapshot.rows.num_rows() as u64),
            snapshot: snapshot.map(|snapshot| snapshot.id.to_string()),
        }))
    }

    pub(super) fn dimension_metrics(&self, out: &mut Exposition) {
        let rows: Vec<(&str, Figures)> = self
            .dimensions
            .iter()
            .map(|room| (room.shelf().name(), room.shelf().figures()))
            .collect();
        if rows.is_empty() {
            return;
        }
        let help = "Seconds since the source was last known to hold the rows in use.";
        let mut age = out.family("garam_dimension_age_seconds", Kind::Gauge, help);
        for (name, figures) in &rows {
            if let Some(known) = figures.age {
                age.sample(&[("dimension", name)], known.as_secs_f64());
            }
        }
        let mut count = out.family("garam_dimension_rows", Kind::Gauge, "Rows in use.");
        for (name, figures) in &rows {
            let rows = figures.snapshot.as_ref().map_or(0, |snapshot| snapshot.rows.num_rows());
            count.count(&[("dimension", name)], rows as u64);
        }
        let help = "What the rows in use take in memory.";
        let mut bytes = out.family("garam_dimension_bytes", Kind::Gauge, help);
        for (name, figures) in &rows {
            bytes.count(&[("dimension", name)], figures.bytes);
        }
        let help = "Refreshes since the start, by outcome.";
        let mut refreshes = out.family("garam_dimension_refreshes_total", Kind::Counter, help);
        for (name, figures) in &rows {
            refreshes.count(&[("dimension", name), ("outcome", "ok")], figures.ok);
            refreshes.count(&[("dimension", name), ("outcome", "failed")], figures.failed);
        }
        let help = "1 while the newest refresh failed.";
        let mut failing = out.family("garam_dimension_failing", Kind::Gauge, help);
        for (name, figures) in &rows {
            failing.count(&[("dimension", name)], u64::from(figures.trouble.is_some()));
        }
    }
}

fn state(figures: &Figures) -> &'static str {
    match (&figures.snapshot, &figures.trouble) {
        (None, _) => "absent",
        (Some(_), Some(_)) => "stale",
        (Some(_), None) => "ok",
    }
}

fn time(us: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(us).ok().map(|at| at.to_string())
}
