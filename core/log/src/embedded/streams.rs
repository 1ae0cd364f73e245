//! The writer's part that opens streams: at a start, and when a pipeline needs its quarantine; and that gives them other limits.
//!
//! In: a stream's configuration. Out: its partitions, recovered or created, and shown in the directory.
//! Promise: a folder of a newer build is refused before anything is changed; a partition that cannot be opened is shown
//! as stopped and keeps no other from serving; one that a full disk kept from being opened is opened when there is room;
//! partitions are never dropped because the configuration has fewer.

use std::path::Path;
use std::sync::Arc;

use garam_proto::{Incarnation, PartitionId, StreamName};
use tokio::sync::watch;

use super::Env;
use super::config::{LogConfig, StreamConfig};
use super::detach::Detached;
use super::directory::{StreamShared, partition_dir};
use super::partition::Partition;
use super::recovery::{self, Recovered};
use super::shared::PartitionShared;
use super::writer::{Stream, Writer, is_full};
use crate::api::LogError;

/// Looks at everything on disk that this configuration would open, and changes nothing.
pub(crate) fn check_disk(
    env: &Env,
    config: &LogConfig,
    stream: &StreamConfig,
) -> Result<(), LogError> {
    let dir = config.dir.join(stream.name.as_str());
    let listed = env.fs.list(&dir).map_err(|e| recovery::io("list", &dir, e))?;
    let indexes = listed.iter().filter(|l| l.is_dir).filter_map(|l| l.name.parse::<u32>().ok());
    let on_disk = indexes.max().map_or(0, |highest| highest + 1);
    if on_disk > stream.partitions {
        return Err(LogError::Invalid {
            why: format!(
                "stream {} has {on_disk} partitions on disk and {} in the configuration: partitions can only be \
                 added, set partitions = {on_disk}",
                stream.name, stream.partitions
            ),
        });
    }
    for index in 0..on_disk {
        let id = PartitionId { stream: stream.name.clone(), index };
        recovery::check_versions(env, &partition_dir(&config.dir, &id))?;
    }
    Ok(())
}

/// The log clock can never be before the newest segment of any stream.
pub(crate) fn newest_clock_ms(env: &Env, dir: &Path) -> Result<u64, LogError> {
    let mut newest = 0;
    for stream in env.fs.list(dir).map_err(|e| recovery::io("list", dir, e))? {
        if !stream.is_dir || StreamName::new(stream.name.clone()).is_err() {
            continue;
        }
        let stream = dir.join(&stream.name);
        for partition in env.fs.list(&stream).map_err(|e| recovery::io("list", &stream, e))? {
            let segments = recovery::list(env, &stream.join(&partition.name))?;
            let last = segments.last().and_then(|(_, path)| recovery::clock_of(env, path));
            newest = newest.max(last.unwrap_or(0));
        }
    }
    Ok(newest)
}

impl Writer {
    /// Opens a stream and shows it. Asked again with the same configuration it changes nothing.
    pub(crate) fn add_stream(&mut self, config: StreamConfig) -> Result<(), LogError> {
        config.check()?;
        if let Some(known) = self.stream_numbers.get(&config.name) {
            let same = self.streams.get(*known).is_some_and(|stream| stream.config == config);
            return if same {
                Ok(())
            } else {
                Err(LogError::Invalid {
                    why: format!("stream {} is open with another configuration", config.name),
                })
            };
        }
        check_disk(&self.env, &self.config, &config)?;
        let clock_ms = self.clock.now_ms(&*self.env.time);
        let number = self.streams.len();
        let mut numbers = Vec::new();
        for index in 0..config.partitions {
            let id = PartitionId { stream: config.name.clone(), index };
            let dir = partition_dir(&self.config.dir, &id);
            let mut recovered = recovery::open(&self.env, &dir, &id, clock_ms);
            if had_no_room(&recovered) && self.reserve.give(&*self.env.fs) {
                recovered = recovery::open(&self.env, &dir, &id, clock_ms);
            }
            let recovered = match recovered {
                Ok(recovered) => recovered,
                Err(error @ LogError::NewerFormat { .. }) => return Err(error),
                Err(error) => not_opened(&id, &error),
            };
            let partition = self.taken_in(self.partitions.len(), number, id, recovered);
            numbers.push(self.partitions.len());
            self.partitions.push(partition);
        }
        self.stream_numbers.insert(config.name.clone(), number);
        self.streams.push(Stream {
            segment_size: self.config.segment_size_of(&config),
            config,
            partitions: numbers,
            bytes: 0,
            full: None,
            full_since: None,
            disk_full: false,
        });
        self.show(number);
        self.count_stream(number);
        Ok(())
    }

    /// Takes other limits for a stream that is open.
    pub(crate) fn change_stream(&mut self, config: StreamConfig) -> Result<(), LogError> {
        config.check()?;
        let segment_size = self.config.segment_size_of(&config);
        let number = self.stream_numbers.get(&config.name).copied();
        let open = number.and_then(|number| Some((number, self.streams.get_mut(number)?)));
        let Some((number, stream)) = open else {
            return Err(LogError::UnknownStream { stream: config.name });
        };
        if stream.config.partitions != config.partitions {
            return Err(LogError::Invalid {
                why: format!(
                    "stream {} is open with {} partitions: another number takes a restart",
                    config.name, stream.config.partitions
                ),
            });
        }
        stream.segment_size = segment_size;
        stream.config = config;
        self.show(number);
        Ok(())
    }

    /// Opens what a full disk kept from being opened. It does what a restart would do, from the beginning.
    pub(crate) fn open_what_had_no_room(&mut self) {
        let clock_ms = self.clock.now_ms(&*self.env.time);
        for number in 0..self.partitions.len() {
            let Some(partition) = self.partitions.get(number) else { continue };
            if !matches!(partition.live, Err(LogError::Full { .. })) {
                continue;
            }
            let (stream, before) = (partition.stream, partition.shared.clone());
            let id = before.id.clone();
            let dir = partition_dir(&self.config.dir, &id);
            let recovered = recovery::open(&self.env, &dir, &id, clock_ms);
            if had_no_room(&recovered) {
                continue;
            }
            let recovered = match recovered {
                Err(error) => not_opened(&id, &error),
                Ok(recovered) => recovered,
            };
            let opened = self.taken_in(number, stream, id, recovered);
            opened.shared.inherit(&before);
            if let Some(partition) = self.partitions.get_mut(number) {
                *partition = opened;
            }
            self.show(stream);
            self.count_stream(stream);
        }
    }

    fn show(&self, stream: usize) {
        let Some(stream) = self.streams.get(stream) else { return };
        let partitions = stream.partitions.iter().filter_map(|&n| self.partitions.get(n));
        let partitions = partitions.map(|partition| partition.shared.clone()).collect();
        self.directory.show(StreamShared { config: stream.config.clone(), partitions });
    }

    fn taken_in(
        &mut self,
        number: usize,
        stream: usize,
        id: PartitionId,
        recovered: Recovered,
    ) -> Partition {
        let (published, end) = watch::channel(recovered.end);
        let shared = PartitionShared::new(
            id,
            number,
            (recovered.incarnation, recovered.ancestors),
            recovered.segments,
            end,
        );
        let dir = partition_dir(&self.config.dir, &shared.id);
        shared.change_detached(|detached| *detached = Detached::load(&*self.env.fs, &dir));
        if let Err(fault) = &recovered.live {
            shared.set_fault(fault);
        }
        let fold = recovered.live.as_ref().ok().map(|live| &live.fold);
        if let Some(fold) = fold.or(recovered.known.as_ref()) {
            shared.show_origins(fold.origins().cloned());
            self.registry.learn_all(stream, number, fold);
        }
        Partition {
            shared: Arc::new(shared),
            published,
            stream,
            live: recovered.live,
            known: recovered.known,
        }
    }
}

fn had_no_room<T>(opened: &Result<T, LogError>) -> bool {
    matches!(opened, Err(LogError::Io { error, .. }) if is_full(error))
}

/// A partition whose files cannot even be looked at.
fn not_opened(id: &PartitionId, error: &LogError) -> Recovered {
    let fault = match error {
        LogError::Damaged { .. } => error.clone(),
        LogError::Io { error: cause, .. } if is_full(cause) => LogError::Full {
            partition: id.clone(),
            why: format!("{error}: free space, the log goes on by itself"),
        },
        error => LogError::Stopped {
            partition: id.clone(),
            why: format!("{error}; check the disk and restart the core"),
        },
    };
    let action = match fault {
        LogError::Full { .. } => "free space",
        _ => "check the disk, then restart the core",
    };
    tracing::error!(partition = %id, %error, action, "cannot open partition");
    Recovered {
        incarnation: Incarnation::NIL,
        ancestors: Vec::new(),
        segments: Vec::new(),
        end: 0,
        live: Err(fault),
        known: None,
    }
}
