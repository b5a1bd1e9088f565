//! What a content is recognised by: in its file, in a copy, and after a restart.

use std::io;

use super::ahead::Ahead;
use super::cursors::Cursors;
use super::window::{ReadAt, Window, line_start, window_before};
use crate::checkpoint::FileEntry;
use crate::identity::{Fingerprint, WINDOW};
use crate::position::Confirmed;

/// What a file holds, compared with a content that it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tail) enum Comparison {
    /// The same.
    Same,
    /// The same up to here; what had been seen behind it, and was not read, is gone.
    Shrunk(u64),
    /// Another content.
    Replaced,
}

/// What counts as the copy of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tail) enum Match {
    /// All that was seen is in it, up to the end.
    Whole,
    /// All that was read is in it.
    Full,
    /// It may end earlier: what was written after it was made, and before the truncation, was in the original alone.
    Prefix,
}

/// Beside the bytes before each position, which the [`Cursors`] have.
#[derive(Debug)]
pub(super) struct Marks {
    /// The first bytes.
    head: Window,
    /// After a restart: how far it had been read before for what was sent, and what is before that.
    sent: Option<Confirmed>,
    /// After a restart, until it was compared: places that have these bytes before them.
    proofs: Vec<Confirmed>,
    /// Of the bytes before its end, where that was behind what was read, and where it was.
    tail: Option<(u64, Fingerprint)>,
    /// And bytes behind what was read.
    next: Option<Ahead>,
}

impl Marks {
    /// Of a content that was never seen.
    pub(super) fn new() -> Self {
        Self { head: Window::Bytes(Vec::new()), sent: None, proofs: Vec::new(), tail: None, next: None }
    }

    /// What a checkpoint says.
    pub(super) fn restored(entry: &FileEntry) -> Self {
        let read = entry.sent.map_or(0, |sent| sent.offset.get());
        let next = |bytes| Ahead::restored(bytes, entry.next_at, read, entry.size);
        Self {
            head: Window::Print(entry.head),
            sent: entry.sent,
            proofs: entry.sent_since.clone(),
            tail: entry.tail.map(|tail| (entry.size, tail)),
            next: entry.next.clone().map(next),
        }
    }

    pub(super) fn head(&self) -> &Window {
        &self.head
    }

    pub(super) fn next(&self) -> Option<&Ahead> {
        self.next.as_ref()
    }

    /// How far it was read for the sink that is furthest, in this run or before.
    pub(super) fn furthest(&self, cursors: &Cursors) -> Confirmed {
        let read = cursors.furthest();
        self.sent.filter(|sent| sent.offset > read.offset).unwrap_or(read)
    }

    /// Compares a content of which this size is known with what a file holds now.
    pub(super) fn compare(
        &self,
        cursors: &Cursors,
        known_size: u64,
        file: &impl ReadAt,
        size: u64,
    ) -> io::Result<Comparison> {
        let Some(read) = self.read_in(cursors, file)? else { return Ok(Comparison::Replaced) };
        let (alike, there) = self.head_in(file)?;
        let gone_from = if alike == self.head.len() {
            self.gone_behind(read, known_size, file, size)?
        } else if (alike as u64) < read {
            return Ok(Comparison::Replaced);
        } else if alike == there {
            Some(size)
        } else {
            // The line that is another one is gone as a whole.
            Some(line_start(&self.head.bytes()[..alike]).max(read))
        };
        Ok(match gone_from {
            None => Comparison::Same,
            // Where nothing was read, nothing was sent: what is there now is another content as soon as anything is missing.
            Some(_) if read == 0 => Comparison::Replaced,
            Some(end) => Comparison::Shrunk(end),
        })
    }

    /// How far the content was read, where a file has what is before every position.
    fn read_in(&self, cursors: &Cursors, file: &impl ReadAt) -> io::Result<Option<u64>> {
        let mut read = 0;
        for (at, before) in cursors.windows() {
            if !before.is_before(file, at)? {
                return Ok(None);
            }
            read = read.max(at);
        }
        let sent = self.sent.filter(|sent| sent.offset.get() > read);
        for known in sent.iter().chain(&self.proofs) {
            if !Window::Print(known.before).is_before(file, known.offset.get())? {
                return Ok(None);
            }
        }
        Ok(Some(sent.map_or(read, |sent| sent.offset.get())))
    }

    /// How many bytes of its beginning a file begins with, and how many the file has there. Of a fingerprint that is all or nothing.
    fn head_in(&self, file: &impl ReadAt) -> io::Result<(usize, usize)> {
        let mut buffer = [0; WINDOW];
        let there = file.fill(&mut buffer[..self.head.len()], 0)?;
        let is = &buffer[..there];
        let alike = match &self.head {
            Window::Bytes(head) => head.iter().zip(is).take_while(|(known, is)| known == is).count(),
            Window::Print(print) if print.matches(is) => there,
            Window::Print(_) => 0,
        };
        Ok((alike, there))
    }

    /// From where on a file with its beginning and with all that was read lacks what had been seen behind that.
    fn gone_behind(
        &self,
        read: u64,
        known_size: u64,
        file: &impl ReadAt,
        size: u64,
    ) -> io::Result<Option<u64>> {
        if let Some(next) = self.next.as_ref().filter(|next| next.at() >= read)
            && let Some(end) = next.changed_from(file)?
        {
            return Ok(Some(end));
        }
        if size < known_size {
            return Ok(Some(size));
        }
        Ok(match self.tail {
            Some((end, tail)) if size >= end && !Window::Print(tail).is_before(file, end)? => Some(read),
            _ => None,
        })
    }

    /// A file was compared with it and holds the same: its beginning is kept, where it is not yet.
    pub(super) fn observe(&mut self, file: &impl ReadAt, size: u64) -> io::Result<()> {
        self.proofs.clear();
        let wanted = usize::try_from(size).map_or(WINDOW, |size| size.min(WINDOW));
        if matches!(self.head, Window::Print(_)) || self.head.len() < wanted {
            let mut head = vec![0; wanted.max(self.head.len())];
            let filled = file.fill(&mut head, 0)?;
            head.truncate(filled);
            self.head = Window::Bytes(head);
        }
        Ok(())
    }

    /// Keeps the first bytes of the content, of which `bytes` begin at `start`.
    pub(super) fn extend_head(&mut self, start: u64, bytes: &[u8]) {
        let Window::Bytes(head) = &mut self.head else { return };
        if head.len() < WINDOW
            && let Some(skip) = (head.len() as u64).checked_sub(start)
            && let Some(new) = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..))
        {
            let room = WINDOW - head.len();
            head.extend_from_slice(&new[..new.len().min(room)]);
        }
    }

    /// Whether a file of this size holds a copy of it.
    pub(super) fn is_copied_in(
        &self,
        cursors: &Cursors,
        known_size: u64,
        copy: &impl ReadAt,
        size: u64,
        how: Match,
    ) -> io::Result<bool> {
        let furthest = self.furthest(cursors);
        // What was sent before a restart, and is known by its fingerprint alone, has to be there whole: else other lines may be there.
        let whole = how != Match::Prefix || self.sent.is_some_and(|sent| sent.offset.get() > size);
        let is_short = how == Match::Whole && known_size > size;
        // All that a restart knows of the beginning has to be there: less would be proof of nothing.
        let lacks_head = matches!(self.head, Window::Print(print) if (print.len as u64) > size);
        if size == 0 || is_short || lacks_head || (whole && furthest.offset.get() > size) {
            return Ok(false);
        }
        // As much of a window as the copy has room for. A fingerprint is of the whole of it, or says nothing.
        let mut proofs = 0;
        let mut shares = |window: &Window, end: u64| -> io::Result<bool> {
            let from = end.saturating_sub(window.len() as u64);
            let room = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX);
            let mut is = vec![0; window.len().min(room)];
            let filled = copy.fill(&mut is, from)?;
            is.truncate(filled);
            let alike = match window {
                Window::Bytes(bytes) => bytes.starts_with(&is),
                Window::Print(print) if is.len() == print.len => print.matches(&is),
                Window::Print(_) => return Ok(how == Match::Prefix),
            };
            proofs += usize::from(alike && !is.is_empty());
            Ok(alike)
        };
        let mut alike = shares(&self.head, self.head.len() as u64)?;
        for (at, before) in cursors.windows() {
            alike &= shares(before, at)?;
        }
        if let Some(sent) = self.sent {
            alike &= shares(&Window::Print(sent.before), sent.offset.get())?;
        }
        // What was seen and not read may be behind the end of the copy.
        if let Some(next) = self.next.as_ref().filter(|next| next.at() < size) {
            alike &= shares(&Window::Bytes(next.bytes().to_vec()), next.at() + next.bytes().len() as u64)?;
        }
        let seen = self.tail.map(|(size, tail)| Confirmed::skipped_to(size, tail));
        for seen in self.proofs.iter().copied().chain(seen).filter(|seen| seen.offset.get() <= size) {
            alike &= shares(&Window::Print(seen.before), seen.offset.get())?;
        }
        Ok(alike && proofs > 0)
    }

    /// Whether a file begins as it does, as far as both go.
    pub(super) fn begins_like(&self, file: &impl ReadAt) -> io::Result<bool> {
        let (alike, there) = self.head_in(file)?;
        Ok(alike == there && self.head.len() > 0)
    }

    /// What is seen behind `end` is gone.
    pub(super) fn shrink(&mut self, end: u64) {
        (self.tail, self.next) = (None, None);
        self.cut_head(end);
    }

    /// The content ends at `end`, whatever was sent behind that.
    pub(super) fn cut(&mut self, end: u64) {
        self.cut_head(end);
        if self.sent.is_some_and(|sent| sent.offset.get() > end) {
            self.sent = None;
        }
    }

    fn cut_head(&mut self, end: u64) {
        if let Window::Bytes(head) = &mut self.head {
            head.truncate(usize::try_from(end).unwrap_or(WINDOW));
        }
    }

    /// Of the bytes before the end of a content of this size, where they were looked at.
    pub(super) fn tail(&self, size: u64) -> Option<Fingerprint> {
        self.tail.filter(|(end, _)| *end == size).map(|(_, tail)| tail)
    }

    /// Looks at the bytes before its end and at those behind what was read, where that is not the end: they have to be there when it is
    /// read on. Right before, the file was compared with it.
    pub(super) fn look_ahead(&mut self, cursors: &Cursors, file: &impl ReadAt, size: u64) {
        if self.has_looked_ahead(cursors, size) {
            return;
        }
        let tail = window_before(file, size).ok();
        let is_whole = |tail: &Vec<u8>| tail.len() as u64 == size.min(WINDOW as u64);
        self.tail = tail.filter(is_whole).map(|tail| (size, Fingerprint::of(&tail)));
        let read = self.furthest(cursors).offset.get();
        self.next = Some(Ahead::look(file, self.head.len(), read, size));
    }

    pub(super) fn has_looked_ahead(&self, cursors: &Cursors, size: u64) -> bool {
        let read = self.furthest(cursors).offset.get();
        let next = self.next.as_ref().is_some_and(|next| next.is_of(self.head.len(), read, size));
        read >= size || (next && self.tail(size).is_some())
    }
}
