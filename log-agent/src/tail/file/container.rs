//! Lines of a container runtime's: parts are joined, and a range is taken where no line is open.

use super::records::DataEnd;
use super::{ReadOptions, TailedFile};
use crate::identity::FileId;
use crate::loss::LossLedger;
use crate::record::chunk::Chunk;
use crate::record::parse::container::{self, Rest};

impl TailedFile {
    /// Takes the whole lines at the start of `data`, each of one part or more, and says how many bytes they were.
    pub(super) fn take_container_lines(
        &mut self,
        sink: usize,
        data: &[u8],
        end: DataEnd,
        options: &ReadOptions,
        chunk: &mut Chunk,
        ledger: &LossLedger,
    ) -> usize {
        let rest = match end {
            DataEnd::Final => Rest::Missing,
            DataEnd::Eof => Rest::Comes,
            DataEnd::More => Rest::Beyond,
        };
        let (lines, taken) = container::lines(options.format, data, rest);
        if let Some(first) = lines.first()
            && self.id.is_none()
        {
            self.id = Some(FileId::derive(&self.key, self.epoch, &data[first.place.clone()]));
        }
        let offset = self.cursors[sink].read.0;
        for line in lines {
            let place = offset + line.place.start as u64..offset + line.place.end as u64;
            self.push_container_line(sink, place, &line.text, line.envelope, options, chunk, ledger);
        }
        taken
    }
}
