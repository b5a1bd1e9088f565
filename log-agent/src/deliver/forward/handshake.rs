//! The handshake of Forward receivers that ask who is there: both sides prove that they know a key without saying it.
//!
//! HELO (a nonce) → PING (our salt, a digest over salt, our name, nonce and key) → PONG (the same the other way).

use std::path::Path;
use std::sync::Arc;

use lifecycle::exit::{Exit, Failure};
use sha2::{Digest as _, Sha512};

use super::super::attempt::DeliveryError;
use super::Connection;
use super::answer::Value;
use crate::record::encode::msgpack;

/// A key that both sides know.
#[derive(Clone)]
pub(crate) struct SharedKey(Arc<[u8]>);

impl std::fmt::Debug for SharedKey {
    /// SECURITY: not the key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SharedKey")
    }
}

impl SharedKey {
    /// From a file, without the line break at its end.
    ///
    /// # Errors
    /// 78 where it cannot be read or is empty.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let refused = |why: String| {
            Failure::new(Exit::Refused, format!("--forward-shared-key-file {}: {why}", file.display()))
        };
        let key = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
        match key.trim_ascii_end() {
            [] => Err(refused("it is empty; put the receiver's shared_key into it".to_owned())),
            key => Ok(Self(key.into())),
        }
    }
}

/// Introduces this agent, and lets the receiver prove that it is the right one.
pub(super) async fn introduce(connection: &mut Connection, key: &SharedKey) -> Result<(), DeliveryError> {
    let helo = connection.receive().await?;
    if helo.at(0).and_then(Value::bytes) != Some(b"HELO") {
        return Err(DeliveryError::retry(
            "it does not begin a handshake, although a shared key is configured",
        ));
    }
    let option =
        |name| helo.at(1).and_then(|options| options.get(name)).and_then(Value::bytes).unwrap_or_default();
    if !option("auth").is_empty() {
        return Err(DeliveryError::retry("it asks for a user and a password, which this agent has not"));
    }
    let nonce = option("nonce").to_vec();
    let hostname = std::env::var("POD_NAME").unwrap_or_else(|_| "log-agent".to_owned());
    let mut salt = [0; 16];
    // Needs to be new, not secret: the key is what is secret.
    salt.fill_with(|| fastrand::u8(..));
    let mut ping = Vec::new();
    msgpack::small_array(6, &mut ping);
    msgpack::string(b"PING", &mut ping);
    msgpack::string(hostname.as_bytes(), &mut ping);
    msgpack::binary(&salt, &mut ping);
    msgpack::string(digest(&salt, hostname.as_bytes(), &nonce, key).as_bytes(), &mut ping);
    msgpack::string(b"", &mut ping);
    msgpack::string(b"", &mut ping);
    connection.write(&ping).await?;
    let reply = connection.receive().await?;
    let text = |at| reply.at(at).and_then(Value::bytes).unwrap_or_default();
    if text(0) != b"PONG" || reply.at(1) != Some(&Value::Bool(true)) {
        let reason = String::from_utf8_lossy(text(2)).into_owned();
        return Err(DeliveryError::retry(format!("it refuses the handshake: {reason}")));
    }
    if text(4) != digest(&salt, text(3), &nonce, key).as_bytes() {
        // SECURITY: lines are not given to a receiver that cannot prove that it knows the key.
        return Err(DeliveryError::retry("it does not know the shared key itself"));
    }
    Ok(())
}

fn digest(salt: &[u8], hostname: &[u8], nonce: &[u8], key: &SharedKey) -> String {
    let mut hash = Sha512::new();
    for part in [salt, hostname, nonce, &key.0] {
        hash.update(part);
    }
    let digits = hash.finalize().iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).collect::<Vec<_>>();
    digits.into_iter().filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}
