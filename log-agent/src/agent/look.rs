//! What may have something to read: by name and size at every scan, by what the kernel says in between. And what is told about it.

use super::Agent;
use crate::metrics::BySink;
use crate::position::SourceSeq;
use crate::source::Joining;
use crate::status::FileState;

impl Agent {
    /// Looks at all names and all sizes.
    pub(super) fn rescan(&mut self) {
        self.resource.refresh();
        let discovery = &mut self.discovery;
        for target in self.catalog.update(|| discovery.scan()) {
            self.discovery.watch_target(&target);
            self.catalog.alias(target);
        }
        self.catalog.close_drained();
        let changed = self.catalog.look(|_| true);
        self.ask(&changed);
        self.publish();
    }

    pub(super) fn look_at_hints(&mut self) {
        let hints = self.discovery.hints();
        if hints.names {
            self.rescan();
            return;
        }
        let mut changed = Vec::new();
        for path in &hints.written {
            match self.catalog.at_path(path) {
                Some(seq) => changed.push(seq),
                // A name that is not followed: perhaps the new one of a file that was renamed out of the globs.
                None => changed.extend(self.catalog.detached()),
            }
        }
        self.ask(&changed);
    }

    /// Looks at files without a name, which no event speaks of, and at rotated ones with an unfinished last line.
    pub(super) fn look_at_the_ending(&mut self) {
        let settled = self.catalog.settle_copies();
        let ending: Vec<SourceSeq> = self
            .catalog
            .sources()
            .filter(|source| {
                self.catalog.is_ending(source) || matches!(self.reader.joining, Joining::ByStart { .. })
            })
            .map(|source| source.seq)
            .collect();
        let changed =
            self.catalog.look(|source| ending.contains(&source.seq) || settled.contains(&source.seq));
        self.ask(&changed);
        self.catalog.close_drained();
    }

    pub(super) fn ask(&mut self, changed: &[SourceSeq]) {
        for seq in changed {
            if let Some(source) = self.catalog.source(*seq) {
                for pipeline in &mut self.pipelines {
                    pipeline.turns.ask(&source.family, *seq);
                }
            }
        }
    }

    /// Tells the admin server what it may say.
    pub(super) fn publish(&mut self) {
        let sinks = self.names.len();
        let files: Vec<_> = self.catalog.sources().map(|source| FileState::of(source, sinks)).collect();
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.open_files.set(gauge(files.len() as u64));
        for (sink, name) in self.names.iter().enumerate() {
            let label = BySink { sink: name.clone() };
            let bytes = files.iter().map(|file| file.lag(sink)).sum();
            self.metrics.unconfirmed_bytes.get_or_create(&label).set(gauge(bytes));
        }
        self.status.set_files(files);
    }
}
