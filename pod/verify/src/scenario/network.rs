//! One address, one port space.

use anyhow::{Context as _, Result, ensure};

use crate::engine::{Engine, Name};

/// Each container answers for itself on its own port of the shared address.
pub fn ports_do_not_clash(pod: &dyn Engine) -> Result<()> {
    for name in Name::ALL {
        let port = name.admin_port();
        let status =
            pod.get_inside(port, "/status").with_context(|| format!("nothing answers on {port}"))?.json();
        ensure!(
            status["name"] == name.as_str(),
            "port {port} is answered by {}, not {}",
            status["name"],
            name.as_str()
        );
        for probe in ["/livez", "/readyz", "/metrics"] {
            let answer = pod.get_inside(port, probe)?;
            ensure!(answer.status() == 200, "{}{probe} answers {}", name.as_str(), answer.start);
        }
    }
    Ok(())
}

/// Over the shared localhost, `/info` sees 127.0.0.1, and answers byte for byte as the lesson's service does.
pub fn info_from_a_neighbour(pod: &dyn Engine) -> Result<()> {
    let answer = pod.get_inside(9876, "/info")?;
    let host = answer.json()["host"].as_str().unwrap_or_default().to_owned();
    let expected = format!(r#"{{"host": "{host}", "version": "0.5.0", "from": "127.0.0.1"}}"#);
    ensure!(answer.text() == expected, "/info answers {:?}, not {expected:?}", answer.text());
    ensure!(host.ends_with(":9876"), "/info is asked as {host}");
    Ok(())
}
