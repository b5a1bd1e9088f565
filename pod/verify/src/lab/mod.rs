//! Labs: pages that a person reads and a machine runs.
//!
//! Every fenced block of commands in the documents says where it runs, and `deploy/verify labs` runs it there: the very
//! lines that a reader types, and the very output that the page promises. `docs/labs/README.md` has the notation.
//!
//! - [`page`]: what a page asks for: blocks, commands, expected lines
//! - [`expect`]: whether what came is what the page shows
//! - [`shell`]: a shell that is typed into
//! - [`workspace`]: the folder and the programs that the commands find
//! - [`descendants`]: every process that a page has started, and their end
//! - [`containers`]: the same for what it has made on Docker
//! - [`run`]: a page from its first command to its last

pub mod containers;
pub mod descendants;
mod expect;
pub mod page;
pub mod run;
mod shell;
pub mod workspace;
