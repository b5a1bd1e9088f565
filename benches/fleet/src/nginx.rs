//! The same requests, answered by nginx: a static manifest beside the same files.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testkit::http::try_get;
use testkit::process::cpu_time;

/// How it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    /// As it comes, and as the content manager works: it looks at the file for each request, and writes a record of it.
    Looking,
    /// It remembers files for 30 s, and writes no log. An edit would be served late, with a length that is not the file's, so this
    /// is no content manager; it is what the same requests cost at the least.
    Remembering,
}

/// A running nginx with one worker.
#[derive(Debug)]
pub(crate) struct Nginx {
    directory: TempDir,
    process: std::process::Child,
    port: u16,
}

impl Nginx {
    /// Serves a directory with the manifest that file-puller writes for it. `None` where there is no nginx.
    pub(crate) fn start(binaries: &Path, root: &Path, setup: Setup) -> anyhow::Result<Option<Self>> {
        let Some(nginx) = ["/usr/sbin/nginx", "/usr/bin/nginx"].iter().find(|path| Path::new(path).is_file())
        else {
            return Ok(None);
        };
        let written = Command::new(binaries.join("file-puller"))
            .arg("manifest")
            .arg(root)
            .arg("--output")
            .arg(root.join("manifest.json"))
            .status()?;
        anyhow::ensure!(written.success(), "file-puller manifest has failed");
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (at, root) = (directory.path().display(), root.display());
        let setup = match setup {
            Setup::Looking => format!("access_log {at}/access;"),
            Setup::Remembering => {
                "access_log off; open_file_cache max=20000 inactive=60s; open_file_cache_valid 30s;"
                    .to_owned()
            }
        };
        let config = format!(
            "worker_processes 1; daemon off; master_process off; pid {at}/pid; error_log {at}/error;
             worker_rlimit_nofile 16384; events {{ worker_connections 8192; }}
             http {{ sendfile on; tcp_nodelay on; keepalive_requests 1000000; {setup}
               client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fcgi;
               uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
               server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }} }}"
        );
        fs::write(directory.path().join("nginx.conf"), config)?;
        let process = Command::new(nginx)
            .arg("-c")
            .arg(directory.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self { directory, process, port };
        testkit::wait_until("nginx serves", || {
            try_get(([127, 0, 0, 1], port).into(), "/manifest.json")
                .is_ok_and(|answer| answer.status() == 200)
        });
        Ok(Some(nginx))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/manifest.json", self.port)
    }

    /// What it has used so far: it is one process, because it has no master.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_time(self.process.id())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        drop(self.process.kill());
        drop(self.process.wait());
        let said = fs::read_to_string(self.directory.path().join("error")).unwrap_or_default();
        for line in said.lines().filter(|line| line.contains("[emerg]") || line.contains("[alert]")) {
            println!("  nginx: {line}");
        }
    }
}
