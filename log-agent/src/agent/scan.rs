//! What may have something to read: by name and size at every scan, by what the kernel says in between. And what is told about it.

use super::Agent;
use super::status::FileState;
use crate::position::FileSeq;
use crate::tail::Multiline;

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
        let changed = self.catalog.poll_sizes(|_| true);
        self.enqueue(&changed);
        self.publish();
    }

    pub(super) fn look_at_hints(&mut self) {
        let events = self.discovery.changes();
        if events.names {
            self.rescan();
            return;
        }
        let mut changed = Vec::new();
        for path in &events.written {
            match self.catalog.at_path(path) {
                Some(seq) => changed.push(seq),
                // A name that is not followed: perhaps the new one of a file that was renamed out of the globs.
                None => changed.extend(self.catalog.detached()),
            }
        }
        self.enqueue(&changed);
    }

    /// Looks at files without a name, which no event speaks of, and at rotated ones with an unfinished last line.
    pub(super) fn poll_unnamed_and_rotated(&mut self) {
        let settled = self.catalog.settle_copies();
        let ending: Vec<FileSeq> = self
            .catalog
            .sources()
            .filter(|source| {
                self.catalog.awaits_quiet(source)
                    || matches!(self.options.multiline, Multiline::StartsWith { .. })
            })
            .map(|source| source.seq)
            .collect();
        let changed =
            self.catalog.poll_sizes(|source| ending.contains(&source.seq) || settled.contains(&source.seq));
        self.enqueue(&changed);
        self.catalog.close_drained();
    }

    pub(super) fn enqueue(&mut self, changed: &[FileSeq]) {
        for seq in changed {
            if let Some(source) = self.catalog.source(*seq) {
                for pipeline in &mut self.pipelines {
                    pipeline.queue.enqueue(&source.family, *seq);
                }
            }
        }
    }

    /// Tells the admin server what it may say.
    pub(super) fn publish(&mut self) {
        let sinks = self.names.len();
        let files: Vec<_> = self.catalog.sources().map(|source| FileState::of(source, sinks)).collect();
        self.metrics.open_files.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        self.status.set_files(files);
        self.status.count_unconfirmed();
    }
}
